// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/errgroup"
)

// Limits of the parts of Up, several times what they take on two busy cores.
const (
	apiLimit     = 3 * time.Minute
	readyLimit   = 3 * time.Minute
	installLimit = 5 * time.Minute
	askLimit     = 30 * time.Second
)

// Up starts the cluster and puts kaniko-go's image, an OCI layout with one image, into its registry. A cluster that is up stays, and only
// gets the image; what is left of one that is not is taken down first.
func (n *Node) Up(ctx context.Context, layout string) error {
	start := time.Now()
	if err := needs(); err != nil {
		return err
	}
	if n.ready(ctx) != nil {
		if err := n.Down(ctx); err != nil {
			return err
		}
		if err := n.begin(ctx); err != nil {
			return err
		}
	}
	if err := errors.Join(n.Start(TransientRegistryService), n.volumes(ctx)); err != nil {
		return err
	}
	reference, err := n.pushOwn(ctx, layout)
	if err != nil {
		return err
	}
	n.say("up after %v; kaniko-go is %s", time.Since(start).Round(time.Second), reference)
	return nil
}

// begin starts everything on a machine where nothing of it is.
func (n *Node) begin(ctx context.Context) error {
	start := time.Now()
	stage := func(what string) { n.say("%5.1fs %s", time.Since(start).Seconds(), what) }
	if err := n.prepare(); err != nil {
		return err
	}
	if err := n.namespaces(ctx); err != nil {
		return err
	}
	services := n.services()
	if err := n.startAll(services[:5]); err != nil {
		return err
	}
	for _, registry := range []string{Registry, PrivateRegistry, TransientRegistry} {
		if err := await(ctx, askLimit, "registry "+registry, func(ctx context.Context) error { return answers(ctx, "http://"+registry+"/v2/") }); err != nil {
			return err
		}
	}
	var work errgroup.Group
	work.Go(func() error { return n.pushSystem(ctx) })
	err := await(ctx, apiLimit, "API server", func(ctx context.Context) error {
		_, err := n.Kubectl(ctx, "", "get", "--raw", "/readyz")
		return err
	})
	if err != nil {
		return errors.Join(err, work.Wait())
	}
	stage("API server")
	if err := errors.Join(n.startAll(services[5:8]), n.install(ctx), work.Wait()); err != nil {
		return err
	}
	stage("Tekton and Argo Workflows applied, images pushed")
	// The kubelet last: a pod whose image is not there yet waits much longer than the image takes.
	if err := n.startAll(services[8:]); err != nil {
		return err
	}
	if err := n.awaitReady(ctx); err != nil {
		return err
	}
	stage("Tekton and Argo Workflows available")
	return os.WriteFile(n.path("up"), nil, 0o644)
}

func (n *Node) startAll(services []service) error {
	for _, s := range services {
		if err := n.start(s); err != nil {
			return err
		}
	}
	return nil
}

// prepare writes everything that is there before the first program starts.
func (n *Node) prepare() error {
	for _, dir := range []string{"bin", "logs", "pids", "ns", "registry", "private-registry", "etcd", "containerd", "kubelet", "flex", "pod-logs", "leases", "volumes"} {
		if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
			return err
		}
	}
	programs := map[string]string{"runc": n.set.Runc}
	for _, program := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"} {
		programs[program] = n.set.Path("kube")
	}
	for _, program := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		programs[program] = n.set.Path(program)
	}
	for _, program := range []string{"bridge", "host-local"} {
		programs[program] = n.set.Path(program)
	}
	for to, from := range programs {
		if err := os.Symlink(from, n.path("bin", to)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := n.writePKI(); err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(Password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	files := n.configuration()
	files["htpasswd"] = User + ":" + string(hash) + "\n"
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(n.path(name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(n.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// namespaces makes the node's two namespaces and the wire to them. They are kept by two mounts, and a mount namespace can be kept by a private mount only.
func (n *Node) namespaces(ctx context.Context) error {
	script := fmt.Sprintf(`mount --bind %[1]s %[1]s; mount --make-private %[1]s; touch %[1]s/net %[1]s/mnt; unshare --net=%[1]s/net --mount=%[1]s/mnt true
ip link add %[2]s type veth peer name uplink netns %[1]s/net
ip addr add %[3]s/30 dev %[2]s; ip link set %[2]s up; ip route add 10.99.0.0/16 via %[4]s`, n.path("ns"), link, HostAddress, Address)
	if out, err := exec.CommandContext(ctx, "sh", "-euc", script).CombinedOutput(); err != nil {
		return fmt.Errorf("namespaces of the node: %w\n%s", err, out)
	}
	// Services need a route, any, before their address is translated; answers between two pods of the
	// bridge would bypass that translation without the last sysctl.
	return n.inside(ctx, fmt.Sprintf(`for dir in %[3]s; do mkdir -p $dir; mount -t tmpfs -o mode=0755 node $dir; done
ip link set lo up; ip addr add %[1]s/30 dev uplink; ip link set uplink up; ip route add %[2]s dev uplink src %[1]s
sysctl -q -w net.ipv4.ip_forward=1; [ ! -e /proc/sys/net/bridge ] || sysctl -q -w net.bridge.bridge-nf-call-iptables=1`, Address, serviceRange, strings.Join(fixedPaths(), " ")))
}

// fixedPaths are directories that programs have fixed; in the node each is a tmpfs of its own.
func fixedPaths() []string {
	return []string{"/run/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log/containers"}
}

func (n *Node) pushSystem(ctx context.Context) error {
	images, err := systemImages(ctx, n.set)
	if err != nil {
		return err
	}
	for _, i := range images {
		if err := i.push(ctx); err != nil {
			return fmt.Errorf("image %s: %w", i.reference, err)
		}
	}
	return nil
}

// pushOwn gives the image a tag of its own digest: a tag that was pushed again would not be pulled again.
func (n *Node) pushOwn(ctx context.Context, layout string) (string, error) {
	index, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		return "", err
	}
	_, after, _ := strings.Cut(string(index), "sha256:")
	if len(after) < 12 {
		return "", fmt.Errorf("%s/index.json names no image", layout)
	}
	reference := Registry + "/kaniko-go:" + after[:12]
	if err := pushLayout(ctx, layout, reference); err != nil {
		return "", fmt.Errorf("image of kaniko-go: %w", err)
	}
	return reference, os.WriteFile(n.path("image"), []byte(reference), 0o644)
}

// Down ends everything and removes it, but for the logs. It does nothing when nothing is there.
func (n *Node) Down(ctx context.Context) error {
	if err := needs(); err != nil {
		return err
	}
	n.end(kubeletService) // first, or it starts anew what is killed
	killAll(inPods)
	services := n.services()
	for i := range services {
		n.end(services[len(services)-1-i].name)
	}
	if shim, err := filepath.EvalSymlinks(n.path("bin", "containerd-shim-runc-v2")); err == nil {
		killAll(func() []int { return runningAs(shim) })
	}
	for _, name := range []string{"net", "mnt", "."} {
		for syscall.Unmount(n.path("ns", name), syscall.MNT_DETACH) == nil {
		}
	}
	// It goes with the other end's namespace, too, as soon as the kernel comes to that.
	wired := func() bool { return exec.CommandContext(ctx, "ip", "link", "show", link).Run() == nil }
	if wired() {
		if out, err := exec.CommandContext(ctx, "ip", "link", "del", link).CombinedOutput(); err != nil && wired() {
			return fmt.Errorf("ip link del %s: %w\n%s", link, err, out)
		}
	}
	removeCgroups()
	for _, dir := range fixedPaths() {
		_ = os.Remove(dir) // only where it is empty: the machine's own stays
	}
	return n.removeState()
}

// removeState leaves the logs.
func (n *Node) removeState() error {
	entries, err := os.ReadDir(n.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "logs" {
			continue
		}
		if err := os.RemoveAll(n.path(e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the pods' cgroups, the deepest first.
func removeCgroups() {
	for _, root := range kubepods() {
		var dirs []string
		_ = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil
		})
		for i := range dirs {
			_ = os.Remove(dirs[len(dirs)-1-i])
		}
	}
}

// answers succeeds when a server answers at all: one that asks for a password is there too.
func answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}
