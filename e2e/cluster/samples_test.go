// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// sample is a file that people copy, as it is in the repository but for the names of registry, repository and images.
type sample struct {
	file    string
	image   string            // what it must have pushed, below the team's repositories
	replace map[string]string // what one node cannot do
}

func samples() []sample {
	const amd64Only = `"arch":"amd64"`
	return []sample{
		{file: "tasks/kaniko-go/samples/claim.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go/samples/clone-and-build.yaml", image: "hello:v1"},
		{file: "tasks/kaniko-go/samples/migrated.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go/samples/registry-cache.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go/samples/user-namespace.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go-multiarch/samples/multiarch.yaml", image: "app:v1", replace: map[string]string{"kubernetes.io/arch: $(params.ARCH)": "kubernetes.io/os: linux", "claimName: source": "claimName: platforms"}},
		{file: "tasks/kaniko-go-split/samples/split.yaml", image: "app:pull-request-1"},
		{file: "stepactions/kaniko-go/samples/git-and-build.yaml", image: "hello:v1"},
		{file: "workflows/kaniko-go/samples/git.yaml", image: "hello:v1"},
		{file: "workflows/kaniko-go/samples/multi-arch.yaml", image: "app:v1", replace: map[string]string{`"arch":"arm64"`: amd64Only}},
		{file: "workflows/kaniko-go/samples/restricted.yaml", image: "static:v1"},
		{file: "workflows/kaniko-go/samples/retry.yaml", image: "app:v1"},
		{file: "workflows/kaniko-go/samples/split.yaml", image: "app:pull-request-1"},
		{file: "workflows/kaniko-go/samples/user-namespace.yaml", image: "app:v1"},
		{file: "workflows/kaniko-go/samples/volume.yaml", image: "hello:v1"},
	}
}

// The samples do what they say, with nothing changed that a reader need not change.
func TestSamples(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "") // a user namespace with SYS_ADMIN is beyond "baseline"
	p.team()
	examples := exampleFiles(t)
	application := maps.Clone(examples)
	for name, text := range hello("") {
		application[name], application["app/"+name] = text, text
	}
	// For other platforms than the node's, so without a RUN.
	platforms := map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\nCOPY note /\n", "note": "for all\n"}
	examplesURL, applicationURL, platformsURL := p.serveGit(examples), p.serveGit(application), p.serveGit(platforms)
	p.claim("source", applicationURL)
	p.claim("platforms", platformsURL)
	for i, s := range samples() {
		t.Run(strings.TrimSuffix(s.file, ".yaml"), func(t *testing.T) {
			t.Parallel()
			p := p.with(t)
			url, team := applicationURL, node.PrivateRegistry+"/"+p.namespace+"/"+string(rune('a'+i))
			if strings.Contains(s.file, "workflows/kaniko-go/samples/multi-arch") {
				url = platformsURL
			}
			text := readFile(t, filepath.Join("../..", s.file))
			for from, to := range s.replace {
				if !strings.Contains(text, from) {
					t.Fatalf("%s has no %q any more", s.file, from)
				}
				text = strings.ReplaceAll(text, from, to)
			}
			p.runSample(siteText(text, team, examplesURL, url), team+"/"+s.image)
		})
	}
}

// siteText puts a site's names in place of those that stand for them.
func siteText(text, team, examples, application string) string {
	return strings.NewReplacer("registry.example.com/team", team, "https://github.com/kaniko-go/kaniko-go", examples,
		"https://git.example.com/team/app", application, "https://git.example.com/somebody/app", application).Replace(text)
}

// runSample runs the one run among the objects, and checks what it has pushed.
func (p *place) runSample(text, destination string) {
	p.t.Helper()
	var run string
	for _, object := range strings.Split(text, "\n---\n") {
		if strings.Contains(object, "generateName:") {
			run = object
		} else {
			p.apply(object)
		}
	}
	for _, kind := range []string{"TaskRun", "PipelineRun", "Workflow"} {
		if !strings.Contains(run, "\nkind: "+kind+"\n") {
			continue
		}
		if kind == "Workflow" {
			p.succeeded(p.argo(run))
			if p.digest(destination) == "" {
				p.t.Errorf("nothing at %s", destination)
			}
			return
		}
		r := p.tekton(strings.ToLower(kind), run)
		if !r.succeeded() {
			p.t.Fatalf("%s: %s\n%s", r.reason(), r.message(), p.runLogs(r))
		}
		if digest := r.results()["IMAGE_DIGEST"]; p.digest(destination) == "" || digest != "" && digest != p.digest(destination) {
			p.t.Errorf("%s has %q, the result is %q", destination, p.digest(destination), digest)
		}
		return
	}
	p.t.Fatalf("no run in\n%s", text)
}

// runLogs are the logs of all pods of a run of either kind.
func (p *place) runLogs(r run) string {
	p.t.Helper()
	if r.Status.PodName != "" {
		return p.stepLogs(r)
	}
	out, err := p.node.Kubectl(p.t.Context(), "", "logs", "-l", "tekton.dev/pipelineRun="+r.Metadata.Name, "--all-containers", "--tail=60", "--prefix", "-n", p.namespace)
	if err != nil {
		return err.Error()
	}
	return out
}

// team installs everything, with the secrets and accounts that the samples name.
func (p *place) team() {
	p.t.Helper()
	for _, file := range []string{
		"tasks/kaniko-go/kaniko-go.yaml", "tasks/kaniko-go-index/kaniko-go-index.yaml", "tasks/kaniko-go-multiarch/kaniko-go-multiarch.yaml",
		"tasks/kaniko-go-split/kaniko-go-split.yaml", "stepactions/kaniko-go/kaniko-go.yaml", "workflows/kaniko-go/kaniko-go.yaml",
	} {
		p.install("../../" + file)
	}
	for _, secret := range []string{"registry-credentials", "registry-pull", "registry-push", "docker-config"} {
		p.credentials(secret, node.Password)
	}
	// The nodes of a site can pull from its registry.
	p.kubectl("", "patch", "serviceaccount", "default", "-n", p.namespace, "-p", `{"imagePullSecrets": [{"name": "registry-credentials"}]}`)
	p.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: builder}\nsecrets: [{name: registry-credentials}]\n")
}

// exampleFiles are those below examples in this repository.
func exampleFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, example := range []string{"hello", "static"} {
		err := filepath.WalkDir(filepath.Join("../../examples", example), func(name string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			relative, err := filepath.Rel("../..", name)
			files[relative] = readFile(t, name)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// claim makes a claim with a clone of a repository on it.
func (p *place) claim(name, repository string) {
	p.t.Helper()
	p.apply(`apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: ` + name + `}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: fill-` + name + `}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: "` + node.GitImage + `"
    args: [clone, "--depth=1", "` + repository + `", /source]
    volumeMounts: [{name: source, mountPath: /source}]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  volumes: [{name: source, persistentVolumeClaim: {claimName: ` + name + `}}]
`)
	if phase := p.podPhase("fill-" + name); phase != "Succeeded" {
		p.t.Fatalf("filling the claim: %s\n%s", phase, p.logs("fill-"+name, "main"))
	}
}

// Pod Security "restricted", enforced: Tekton's own containers keep to it where its feature flag says so, the sample's step does anyway. It is alone on the
// node, for the flag is the cluster's.
func TestRestrictedTask(t *testing.T) {
	p := newPlace(t, "restricted")
	set := func(value string) {
		// Also after the test's own context has ended.
		ctx, cancel := context.WithTimeout(context.Background(), shortLimit)
		defer cancel()
		_, err := p.node.Kubectl(ctx, "", "patch", "configmap", "feature-flags", "-n", "tekton-pipelines", "--type=merge", "-p", `{"data": {"set-security-context": "`+value+`"}}`)
		if err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { set("false") })
	set("true")
	p.credentials("registry-credentials", node.Password)
	p.claim("source", p.serveGit(exampleFiles(t)))
	team := node.PrivateRegistry + "/" + p.namespace
	// The registry here speaks plain HTTP, which the sample's does not.
	text := strings.Replace(siteText(readFile(t, "../../tasks/kaniko-go/samples/restricted.yaml"), team, "", ""),
		"          - name: KANIKO_CONTEXT\n", "          - name: KANIKO_INSECURE_REGISTRY\n            value: \"$REGISTRY\\n$PRIVATE\"\n          - name: KANIKO_CONTEXT\n", 1)
	// The controller takes the flag up when it sees the change; until then the pod is refused, and the run fails at once.
	var r run
	p.await(shortLimit, "a pod in a restricted namespace", func() (string, bool) {
		r = p.tekton("taskrun", text)
		return r.message(), r.Status.PodName != ""
	})
	p.pushed(r, team+"/static:v1")
}
