// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/programs"
)

const volumeCount = 40

// install applies Tekton and Argo Workflows as their releases have them, with the images of the cluster's registry.
func (n *Node) install(ctx context.Context) error {
	text, err := n.tekton()
	if err != nil {
		return fmt.Errorf("YAML of Tekton: %w", err)
	}
	if _, err := n.Kubectl(ctx, text, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	if err := n.writeKustomization(); err != nil {
		return fmt.Errorf("YAML of Argo Workflows: %w", err)
	}
	if _, err := n.Kubectl(ctx, "", "create", "namespace", "argo"); err != nil {
		return err
	}
	_, err = n.Kubectl(ctx, "", "apply", "--server-side", "-k", n.path("argo"))
	return err
}

// tekton is all YAML of a Tekton installation, in the order in which it is to be applied.
func (n *Node) tekton() (string, error) {
	var files []string
	for _, pattern := range []string{"100-namespace/*.yaml", "300-crds/*.yaml", "*.yaml", "resolvers/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(n.set.Tekton(), pattern))
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	var all strings.Builder
	for _, file := range files {
		if filepath.Base(file) == "webhook-hpa.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		// Some end without a line break.
		all.Write(append(text, "\n---\n"...))
	}
	text := regexp.MustCompile(`ko://github\.com/tektoncd/pipeline/cmd/([a-z]+)`).ReplaceAllStringFunc(all.String(), func(found string) string {
		return tektonImage(found[strings.LastIndex(found, "/")+1:])
	})
	text = regexp.MustCompile(`cgr\.dev/chainguard/busybox@sha256:[0-9a-f]+`).ReplaceAllString(text, BusyboxImage)
	return strings.ReplaceAll(text, `"devel"`, `"`+programs.TektonVersion+`"`), nil
}

// writeKustomization makes Argo's installation without its server, which nobody here asks.
func (n *Node) writeKustomization() error {
	dir := n.path("argo")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	base, err := filepath.Rel(dir, filepath.Join(n.set.Argo(), "cluster-install"))
	if err != nil {
		return err
	}
	image := strings.TrimSuffix(argoImage("workflow-controller"), ":"+programs.ArgoVersion)
	return os.WriteFile(filepath.Join(dir, "kustomization.yaml"), fmt.Appendf(nil, `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: argo
resources: [%q]
images: [{name: quay.io/argoproj/workflow-controller, newName: %q, newTag: %q}]
patches:
  - patch: '{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "argo-server"}, "$patch": "delete"}'
  - target: {kind: Deployment, name: workflow-controller}
    patch: '[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["--executor-image", %q]}]'
`, base, image, programs.ArgoVersion, argoImage("argoexec")), 0o644)
}

// awaitReady waits for the node, and for all that runs on it.
func (n *Node) awaitReady(ctx context.Context) error {
	err := await(ctx, readyLimit, "node", func(ctx context.Context) error {
		_, err := n.Kubectl(ctx, "", "wait", "--for=condition=Ready", "node/"+nodeName, "--timeout=30s")
		return err
	})
	if err != nil {
		return err
	}
	for _, namespace := range []string{"tekton-pipelines", "tekton-pipelines-resolvers", "argo"} {
		if _, err := n.Kubectl(ctx, "", "wait", "--for=condition=Available", "deployment", "--all", "-n", namespace, "--timeout="+installLimit.String()); err != nil {
			pods, _ := n.Kubectl(ctx, "", "get", "pods", "-A", "-o", "wide")
			return fmt.Errorf("%w\n%s", err, pods)
		}
	}
	return nil
}

// volumes gives claims what they need: no provisioner exists here. Local volumes honour fsGroup, as cloud disks do and hostPath does not. One that was
// used is emptied and free again.
func (n *Node) volumes(ctx context.Context) error {
	used, err := n.released(ctx)
	if err != nil {
		return err
	}
	text := "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: local, annotations: {storageclass.kubernetes.io/is-default-class: \"true\"}}\nprovisioner: kubernetes.io/no-provisioner\nvolumeBindingMode: WaitForFirstConsumer\n"
	for i := range volumeCount {
		name := fmt.Sprintf("local-%02d", i)
		dir := n.path("volumes", name)
		if used[name] {
			if err := errors.Join(os.RemoveAll(dir), n.release(ctx, name)); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		text += fmt.Sprintf(`---
apiVersion: v1
kind: PersistentVolume
metadata: {name: %s}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce, ReadWriteMany, ReadOnlyMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {path: %q}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]}]}}
`, name, dir, nodeName)
	}
	_, err = n.Kubectl(ctx, text, "apply", "--server-side", "-f", "-")
	return err
}

// released are the names of the volumes whose claim is gone.
func (n *Node) released(ctx context.Context) (map[string]bool, error) {
	out, err := n.Kubectl(ctx, "", "get", "persistentvolumes", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ Phase string }
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("persistent volumes: %w", err)
	}
	found := map[string]bool{}
	for _, item := range list.Items {
		found[item.Metadata.Name] = item.Status.Phase == "Released"
	}
	return found, nil
}

func (n *Node) release(ctx context.Context, name string) error {
	_, err := n.Kubectl(ctx, "", "patch", "persistentvolume", name, "--type=json", "-p", `[{"op": "remove", "path": "/spec/claimRef"}]`)
	return err
}

// InstallExecutor permits the workflows of a namespace to report their results, as Argo's own YAML does.
func (n *Node) InstallExecutor(ctx context.Context, namespace string) error {
	text := `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: executor}
rules: [{apiGroups: [argoproj.io], resources: [workflowtaskresults], verbs: [create, patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: executor-default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: executor}
subjects: [{kind: ServiceAccount, name: default}]
`
	_, err := n.Kubectl(ctx, text, "apply", "-n", namespace, "--server-side", "-f", "-")
	return err
}
