// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

var full = flag.Bool("full", false, "run everything, not only the core")

// Longest times: what takes seconds on an idle machine may take much longer on one that is not.
const (
	runLimit   = 4 * time.Minute
	shortLimit = 60 * time.Second
)

// place is one namespace of the cluster, with what the project publishes installed in it. It goes away with its test.
type place struct {
	t         *testing.T
	node      *node.Node
	namespace string
	image     string // kaniko-go in the cluster's registry
	// transport trusts also what a test has put up; nil trusts what the machine trusts.
	transport http.RoundTripper
}

// newPlace makes a namespace where people have worked with Argo before: a workflow's pods may report.
func newPlace(t *testing.T, security string) *place {
	t.Helper()
	p := newNamespace(t, security)
	if err := p.node.InstallExecutor(t.Context(), p.namespace); err != nil {
		t.Fatal(err)
	}
	return p
}

// newNamespace makes a namespace with nothing in it, labelled with the level of Pod Security that it enforces ("" is none).
func newNamespace(t *testing.T, security string) *place {
	t.Helper()
	n, err := node.Running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	image, err := n.Image()
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, node: n, image: image}
	label := ""
	if security != "" {
		label = "pod-security.kubernetes.io/enforce: " + security
	}
	p.namespace, err = n.Create(t.Context(), "", fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {generateName: kaniko-go-, labels: {%s}}\n", label))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.remove)
	p.awaitAccount()
	return p
}

// remove has the namespace deleted with all pods, and after a failure says what the cluster knew.
func (p *place) remove() {
	// Not the test's context: that has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if p.t.Failed() {
		for _, args := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events", "--field-selector=type=Warning"}} {
			out, _ := p.node.Kubectl(ctx, "", append(args, "-n", p.namespace)...)
			p.t.Log(out)
		}
	}
	if err := p.node.DeleteNamespace(ctx, p.namespace); err != nil {
		p.t.Errorf("namespace is left: %v", err)
	}
}

// awaitAccount waits for the namespace's default account; pods are refused before.
func (p *place) awaitAccount() {
	p.t.Helper()
	p.await(shortLimit, "ServiceAccount default", func() (string, bool) {
		err := p.node.Get(p.t.Context(), p.namespace, "serviceaccount", "default", &struct{}{})
		return fmt.Sprint(err), err == nil
	})
}

func (p *place) kubectl(input string, args ...string) string {
	p.t.Helper()
	out, err := p.node.Kubectl(p.t.Context(), input, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// apply applies YAML in the namespace, as a user would; images of the project that are named as published become the one under test.
func (p *place) apply(text string) {
	p.t.Helper()
	if err := p.node.Apply(p.t.Context(), p.namespace, p.local(text)); err != nil {
		p.t.Fatal(err)
	}
}

// install applies a file of the repository.
func (p *place) install(file string) {
	p.t.Helper()
	p.apply(readFile(p.t, file))
}

// local puts what the cluster has in place of what a user has elsewhere: the project's image, base images, git. That the registries speak plain HTTP
// is made the default of tasks and templates, as an administrator might do.
func (p *place) local(text string) string {
	for _, form := range []string{`(name: INSECURE_REGISTRIES\n +description: .*\n +default: )""`, `(name: insecure-registries\n +description: .*\n +value: )""`} {
		text = regexp.MustCompile(form).ReplaceAllString(text, `${1}"`+node.Registry+`\n`+node.PrivateRegistry+`\n`+node.TransientRegistry+`"`)
	}
	text = regexp.MustCompile(`ghcr\.io/kaniko-go/kaniko-go:[a-zA-Z0-9._-]+(@sha256:[0-9a-f]{64})?`).ReplaceAllLiteralString(text, p.image)
	text = regexp.MustCompile(`docker\.io/library/busybox:[a-z0-9.]+`).ReplaceAllLiteralString(text, node.BusyboxImage)
	return strings.NewReplacer("$BASE", node.BusyboxImage, "alpine/git:2.49.1", node.GitImage, "$REGISTRY", node.Registry, "$PRIVATE", node.PrivateRegistry, "$NAMESPACE", p.namespace, "$KANIKO_GO", p.image).Replace(text)
}

// files makes a ConfigMap of files, which a build uses as its context.
func (p *place) files(name string, files map[string]string) {
	p.t.Helper()
	data := map[string]string{}
	for file, text := range files {
		data[file] = p.local(text)
	}
	object, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]string{"name": name}, "data": data})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.node.Apply(p.t.Context(), p.namespace, string(object)); err != nil {
		p.t.Fatal(err)
	}
}

// object reads one object into a struct.
func (p *place) object(kind, name string, into any) {
	p.t.Helper()
	if err := p.node.Get(p.t.Context(), p.namespace, kind, name, into); err != nil {
		p.t.Fatal(err)
	}
}

// await asks until it is so; the text is what was seen last.
func (p *place) await(limit time.Duration, what string, seen func() (string, bool)) {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		text, ok := seen()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not after %v: %s", what, limit, text)
		}
		time.Sleep(400 * time.Millisecond)
	}
}

// logs are what a container has printed.
func (p *place) logs(pod, container string) string {
	p.t.Helper()
	text, err := p.node.Logs(p.t.Context(), p.namespace, pod, container)
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// digest is what the registry has under a reference, "" if nothing.
func (p *place) digest(reference string) string {
	p.t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		p.t.Fatal(err)
	}
	found, err := remote.Head(ref, p.access(ref)...)
	if err != nil {
		return ""
	}
	return found.Digest.String()
}

// access is how the tests themselves reach a repository.
func (p *place) access(ref name.Reference) []remote.Option {
	options := []remote.Option{remote.WithContext(p.t.Context()), remote.WithAuth(authentication(ref))}
	if p.transport != nil {
		options = append(options, remote.WithTransport(p.transport))
	}
	return options
}

func authentication(ref name.Reference) authn.Authenticator {
	switch ref.Context().RegistryStr() {
	case node.PrivateRegistry, node.TransientRegistry:
		return &authn.Basic{Username: node.User, Password: node.Password}
	}
	return authn.Anonymous
}

// config is the configuration of an image in the registry.
func (p *place) config(reference string) *v1.ConfigFile {
	p.t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		p.t.Fatal(err)
	}
	image, err := remote.Image(ref, p.access(ref)...)
	if err != nil {
		p.t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		p.t.Fatal(err)
	}
	return config
}

// runImage pulls an image by the kubelet, runs it and returns what it printed.
func (p *place) runImage(reference string) string {
	p.t.Helper()
	pod := p.create(fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {generateName: consumer-}
spec: {restartPolicy: Never, containers: [{name: main, image: %q}]}
`, reference))
	if phase := p.podPhase(pod); phase != "Succeeded" {
		p.t.Fatalf("%s ends as %s: %s", reference, phase, p.logs(pod, "main"))
	}
	return p.logs(pod, "main")
}

// podPhase waits for a pod's end.
func (p *place) podPhase(name string) string {
	p.t.Helper()
	var pod struct {
		Status struct {
			Phase             string
			ContainerStatuses []struct{ State any }
		}
	}
	p.await(runLimit, "end of pod "+name, func() (string, bool) {
		p.object("pod", name, &pod)
		return fmt.Sprintf("%+v", pod.Status), pod.Status.Phase == "Succeeded" || pod.Status.Phase == "Failed"
	})
	return pod.Status.Phase
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hello is a context whose image prints what it was built with.
func hello(more string) map[string]string {
	return map[string]string{"Dockerfile": "FROM $BASE\nARG WHOM=nobody\nRUN echo built for $WHOM > /greeting && id -u >> /greeting\nCOPY note /note\n" + more + "\nENTRYPOINT [\"/bin/cat\", \"/greeting\", \"/note\"]\n", "note": "a note\n"}
}
