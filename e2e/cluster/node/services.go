// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"os"
)

// The services by name; Stop and Start know them too.
const (
	registryService          = "registry"
	privateRegistryService   = "private-registry"
	TransientRegistryService = "transient-registry"
	kubeletService           = "kubelet"
)

// services are the programs of the node in the order in which they start.
func (n *Node) services() []service {
	kubeconfig := "--kubeconfig=" + n.path("admin.kubeconfig")
	path := "PATH=" + n.path("bin") + ":" + os.Getenv("PATH")
	return []service{
		{name: registryService, args: []string{"docker-registry", "serve", n.path("registry.yml")}},
		{name: privateRegistryService, args: []string{"docker-registry", "serve", n.path("private-registry.yml")}},
		{name: TransientRegistryService, args: []string{"docker-registry", "serve", n.path("transient-registry.yml")}},
		{name: "etcd", args: []string{
			n.path("bin", "etcd"), "--data-dir=" + n.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380",
		}},
		{name: "apiserver", args: []string{
			n.path("bin", "kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", "--bind-address=" + Address, "--advertise-address=" + Address, "--secure-port=6443",
			"--client-ca-file=" + n.path("ca.pem"), "--tls-cert-file=" + n.path("apiserver.pem"), "--tls-private-key-file=" + n.path("apiserver.key"),
			"--kubelet-client-certificate=" + n.path("admin.pem"), "--kubelet-client-key=" + n.path("admin.key"), "--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + n.path("tokens.pub"), "--service-account-signing-key-file=" + n.path("tokens.key"),
			"--service-cluster-ip-range=" + serviceRange, "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		}},
		{name: "controller-manager", args: []string{
			n.path("bin", "kube-controller-manager"), kubeconfig, "--root-ca-file=" + n.path("ca.pem"), "--service-account-private-key-file=" + n.path("tokens.key"),
			"--use-service-account-credentials=true", "--leader-elect=false", "--bind-address=127.0.0.1", "--flex-volume-plugin-dir=" + n.path("flex"),
		}},
		{name: "scheduler", args: []string{n.path("bin", "kube-scheduler"), kubeconfig, "--leader-elect=false", "--bind-address=127.0.0.1"}},
		{name: "proxy", args: []string{n.path("bin", "kube-proxy"), "--config=" + n.path("proxy.yaml"), "--hostname-override=" + nodeName}},
		{name: "containerd", args: []string{n.path("bin", "containerd"), "--config", n.path("containerd.toml")}, env: []string{path}},
		{name: kubeletService, args: []string{
			n.path("bin", "kubelet"), "--kubeconfig=" + n.path("node.kubeconfig"), "--config=" + n.path("kubelet.yaml"), "--hostname-override=" + nodeName, "--node-ip=" + Address,
			"--root-dir=" + n.path("kubelet"), "--cert-dir=" + n.path("kubelet", "pki"),
		}},
	}
}

// configuration is the text of every file that the services read, by name below the state directory.
func (n *Node) configuration() map[string]string {
	password := fmt.Sprintf("auth: {htpasswd: {realm: cluster, path: %q}}\n", n.path("htpasswd"))
	return map[string]string{
		"admin.kubeconfig":                         n.kubeconfig("admin"),
		"node.kubeconfig":                          n.kubeconfig("node"),
		"registry.yml":                             n.registryConfig("registry", Registry, ""),
		"private-registry.yml":                     n.registryConfig("private-registry", PrivateRegistry, password),
		"transient-registry.yml":                   n.registryConfig("transient-registry", TransientRegistry, password),
		"proxy.yaml":                               n.proxyConfig(),
		"kubelet.yaml":                             n.kubeletConfig(),
		"containerd.toml":                          n.containerdConfig(),
		"hosts/" + Registry + "/hosts.toml":        plainHTTP(Registry),
		"hosts/" + Published + "/hosts.toml":       plainHTTP(Registry),
		"cni/10-pods.conflist":                     n.networkConfig(),
		"resolv.conf":                              "",
		"hosts/" + PrivateRegistry + "/hosts.toml": plainHTTP(PrivateRegistry),
	}
}

func (n *Node) kubeconfig(user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: cluster, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: user, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: context, context: {cluster: cluster, user: user}}]
current-context: context
`, api, n.path("ca.pem"), n.path(user+".pem"), n.path(user+".key"))
}

func (n *Node) registryConfig(dir, address, more string) string {
	return fmt.Sprintf("version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q}\n%s", n.path(dir), address, more)
}

func plainHTTP(registry string) string {
	return fmt.Sprintf("server = \"http://%[1]s\"\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", registry)
}

// proxyConfig leaves the conntrack sysctls alone: they are the machine's.
func (n *Node) proxyConfig() string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %q}
mode: nftables
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
oomScoreAdj: 0
`, n.path("admin.kubeconfig"))
}

// kubeletConfig is a usual kubelet's, with what a machine asks that may lack CAP_SYS_RESOURCE, may have cgroup v1, swap and a full disk. Authorization
// is on: a hostile RUN must find at port 10250 what it finds elsewhere. At the address of the DNS nobody listens: a name fails at once.
func (n *Node) kubeletConfig() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %s
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: "unix:///run/containerd/containerd.sock"
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
clusterDomain: cluster.local
clusterDNS: [%s]
resolvConf: %q
podLogsDir: %q
volumePluginDir: %q
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
maxOpenFiles: 20000
oomScoreAdj: 0
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "100Mi", nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%", imagefs.inodesFree: "0%%"}
`, Address, n.path("ca.pem"), Address, n.path("resolv.conf"), n.path("pod-logs"), n.path("flex"))
}

func (n *Node) containerdConfig() string {
	return fmt.Sprintf(`version = 3
root = %q
state = "/run/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %q
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = %q
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  cdi_spec_dirs = []
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [%q]
  conf_dir = %q
  use_internal_loopback = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = %q
  Root = "/run/containerd/runc"
  SystemdCgroup = false
`, n.path("containerd"), PauseImage, n.path("hosts"), n.path("bin"), n.path("cni"), n.path("bin", "runc"))
}

func (n *Node) networkConfig() string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods", "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
  "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]]}}]}
`, n.path("leases"), podRange)
}
