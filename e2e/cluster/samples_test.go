// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// sample is a file that people copy, as it is in the repository but for the names of registry, repository and images.
type sample struct {
	file      string
	image     string            // what it must have pushed, below the team's repositories; "" if it pushes nothing
	source    string            // the repository that it builds, "" for that of most
	platforms string            // those of the index that it pushes
	replace   map[string]string // what one node cannot do
	test      string            // the test that runs it, "" for TestSamples
}

func samples() []sample {
	const amd64Only, both = `"arch":"amd64"`, "linux/amd64 linux/arm64"
	return []sample{
		{file: "tasks/kaniko-go/samples/claim.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go/samples/clone-and-build.yaml", image: "hello:v1"},
		{file: "tasks/kaniko-go/samples/migrated.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go/samples/private-ca.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go/samples/registry-cache.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go/samples/restricted.yaml", test: "TestRestrictedTask"},
		{file: "tasks/kaniko-go/samples/secret.yaml", image: "app:v1", source: "secret"},
		{file: "tasks/kaniko-go/samples/user-namespace.yaml", image: "app:v1"},
		{file: "tasks/kaniko-go/tests/run.yaml"},
		{file: "tasks/kaniko-go-index/samples/index.yaml", image: "app:v1", platforms: both},
		{file: "tasks/kaniko-go-index/tests/run.yaml"},
		{file: "tasks/kaniko-go-multiarch/samples/multiarch.yaml", image: "app:v1", platforms: both, replace: map[string]string{"kubernetes.io/arch: $(params.ARCH)": "kubernetes.io/os: linux"}},
		{file: "tasks/kaniko-go-split/samples/split.yaml", image: "app:pull-request-1"},
		{file: "tasks/kaniko-go-split/tests/run.yaml"},
		{file: "stepactions/kaniko-go/samples/git-and-build.yaml", image: "hello:v1"},
		{file: "workflows/kaniko-go/samples/git.yaml", image: "hello:v1"},
		{file: "workflows/kaniko-go/samples/index.yaml", image: "app:v1", source: "platforms", platforms: both, replace: map[string]string{`"kubernetes.io/arch":"{{item.arch}}"`: `"kubernetes.io/os":"linux"`}},
		{file: "workflows/kaniko-go/samples/memoize.yaml", test: "TestMemoize"},
		{file: "workflows/kaniko-go/samples/multi-arch.yaml", image: "app:v1", source: "platforms", platforms: both, replace: map[string]string{`"arch":"arm64"`: amd64Only}},
		{file: "workflows/kaniko-go/samples/private-ca.yaml", image: "app:v1"},
		{file: "workflows/kaniko-go/samples/restricted.yaml", test: "TestRestrictedWorkflow"},
		{file: "workflows/kaniko-go/samples/retry.yaml", image: "app:v1"},
		{file: "workflows/kaniko-go/samples/secret.yaml", image: "app:v1", source: "secret"},
		{file: "workflows/kaniko-go/samples/split.yaml", image: "app:pull-request-1"},
		{file: "workflows/kaniko-go/samples/user-namespace.yaml", image: "app:v1"},
		{file: "workflows/kaniko-go/samples/volume.yaml", image: "hello:v1"},
		{file: "examples/pods/build.yaml", image: "hello:1"},
		{file: "examples/pods/restricted.yaml", image: "static:1"},
		{file: "examples/pods/split.yaml", image: "hello:1"},
		{file: "examples/pods/user-namespace.yaml", image: "hello:1"},
	}
}

// No file that people copy is left out, and none is listed that there is not.
func TestEverySample(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, s := range samples() {
		listed[s.file] = true
	}
	for _, pattern := range []string{"tasks/*/samples/*", "tasks/*/tests/*.yaml", "stepactions/*/samples/*", "workflows/*/samples/*", "examples/pods/*.yaml"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			file = strings.TrimPrefix(file, "../../")
			if !listed[file] {
				t.Errorf("%s is run nowhere", file)
			}
			delete(listed, file)
		}
	}
	for file := range listed {
		t.Errorf("there is no %s", file)
	}
}

// site is what stands behind the names in the samples: registries, and repositories by what is in them.
type site struct {
	examples, internal string
	sources            map[string]string
	web                string // the source "platforms" over HTTP, as a build fetches one
}

// newSite is a site whose repositories are there.
func newSite(p *place) site {
	p.t.Helper()
	examples := exampleFiles(p.t)
	application := maps.Clone(examples)
	for name, text := range hello("") {
		application[name], application["app/"+name] = text, text
	}
	// For other platforms than the node's, so without a RUN.
	platforms := map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nARG CPU\nENV ARCH=$TARGETARCH CPU=$CPU\nCOPY note /\n", "note": "for all\n"}
	secret := map[string]string{"Dockerfile": "FROM $BASE\nRUN --mount=type=secret,id=token,required=true [ \"$(cat /run/secrets/token)\" = for-the-build-only ]\n", "note": "a note\n"}
	return site{examples: p.serveGit(examples), web: p.serveGitHTTP(platforms), sources: map[string]string{"": p.serveGit(application), "platforms": p.serveGit(platforms), "secret": p.serveGit(secret)}}
}

// furnish adds what samples name besides: a claim with each repository, "source" for that of most, a registry with a certificate of the site's own, a secret.
func (s *site) furnish(p *place) {
	p.t.Helper()
	s.internal = p.serveTLS()
	for name, url := range s.sources {
		p.claim("source"+name, url)
	}
	p.kubectl("for-the-build-only", "create", "secret", "generic", "build-secrets", "--from-file=token=/dev/stdin", "-n", p.namespace)
}

// text is a sample with the site's names in place of those that stand for them.
func (s site) text(t *testing.T, c sample, team string) string {
	t.Helper()
	text := readFile(t, filepath.Join("../..", c.file))
	for from, to := range c.replace {
		if !strings.Contains(text, from) {
			t.Fatalf("%s has no %q any more", c.file, from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	text = strings.ReplaceAll(text, "claimName: source\n", "claimName: source"+c.source+"\n")
	text = strings.ReplaceAll(text, "https://git.example.com/team/app.git", s.web)
	// The catalogue's tests have a registry of their own beside them, and find it by its name.
	text = strings.NewReplacer("registry.internal:5000/team", s.internal+"/"+path.Base(team), "registry:5000", node.Registry).Replace(text)
	// That the registries speak plain HTTP no template can make the default of a Pod.
	text = strings.ReplaceAll(text, "      env:\n        - {name: KANIKO_", "      env:\n        - {name: KANIKO_INSECURE_REGISTRY, value: \""+node.Registry+"\\n"+node.PrivateRegistry+"\"}\n        - {name: KANIKO_")
	return siteText(text, team, s.examples, s.sources[c.source])
}

// The samples do what they say, with nothing changed that a reader need not change.
func TestSamples(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "") // a user namespace with SYS_ADMIN is beyond "baseline"
	p.team()
	site := newSite(p)
	site.furnish(p)
	for i, s := range samples() {
		if s.test != "" {
			continue
		}
		t.Run(strings.TrimSuffix(s.file, ".yaml"), func(t *testing.T) {
			t.Parallel()
			p := p.with(t)
			team := fmt.Sprintf("%s/%s/%02d", node.PrivateRegistry, p.namespace, i)
			text := site.text(t, s, team)
			destination := team + "/" + s.image
			if strings.HasSuffix(s.file, "private-ca.yaml") {
				destination = site.internal + "/" + path.Base(team) + "/" + s.image
			}
			for n, arch := range []string{"amd64", "arm64"} {
				named := fmt.Sprintf("sha256:%064d", n+1)
				if strings.Contains(text, named) {
					text = strings.ReplaceAll(text, named, p.platformImage(team+"/app", arch))
				}
			}
			if s.image == "" {
				destination = ""
			}
			p.runSample(text, destination)
			if s.platforms != "" {
				if got := p.platforms(destination); got != s.platforms {
					t.Errorf("%s is an index of %q, not of %q", destination, got, s.platforms)
				}
			}
		})
	}
}

// platformImage pushes an image for another platform, and returns the digest.
func (p *place) platformImage(repository, arch string) string {
	p.t.Helper()
	made, err := random.Image(100, 1)
	if err != nil {
		p.t.Fatal(err)
	}
	config, err := made.ConfigFile()
	if err != nil {
		p.t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	if made, err = mutate.ConfigFile(made, config); err != nil {
		p.t.Fatal(err)
	}
	ref, err := name.NewTag(repository + ":" + arch)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := remote.Write(ref, made, p.access(ref)...); err != nil {
		p.t.Fatal(err)
	}
	return p.digest(ref.String())
}

// platforms are those of an index.
func (p *place) platforms(reference string) string {
	p.t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		p.t.Fatal(err)
	}
	index, err := remote.Index(ref, p.access(ref)...)
	if err != nil {
		p.t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		p.t.Fatal(err)
	}
	var found []string
	for _, m := range manifest.Manifests {
		found = append(found, m.Platform.String())
	}
	slices.Sort(found)
	return strings.Join(found, " ")
}

// siteText puts a site's names in place of those that stand for them.
func siteText(text, team, examples, application string) string {
	return strings.NewReplacer("registry.example.com/team", team, "https://github.com/kaniko-go/kaniko-go", examples,
		"https://git.example.com/team/app", application, "https://git.example.com/somebody/app", application).Replace(text)
}

// runSample runs the one run among the objects, and checks what it has pushed; "" if that is nothing.
func (p *place) runSample(text, destination string) {
	p.t.Helper()
	var run string
	for _, object := range strings.Split("\n"+text, "\n---\n") {
		if strings.Contains(object, "generateName:") || strings.Contains(object, "\nkind: Pod\n") {
			run = object
		} else {
			p.apply(object)
		}
	}
	var digest string // as the run has told it
	switch {
	case strings.Contains(run, "\nkind: Workflow\n"):
		p.succeeded(p.argo(run))
	case strings.Contains(run, "\nkind: Pod\n"):
		p.runPod(run)
	case strings.Contains(run, "\nkind: TaskRun\n"), strings.Contains(run, "\nkind: PipelineRun\n"):
		kind := "taskrun"
		if strings.Contains(run, "\nkind: PipelineRun\n") {
			kind = "pipelinerun"
		}
		r := p.tekton(kind, run)
		if !r.succeeded() {
			p.t.Fatalf("%s: %s\n%s", r.reason(), r.message(), p.runLogs(r))
		}
		digest = r.results()["IMAGE_DIGEST"]
	default:
		p.t.Fatalf("no run in\n%s", text)
	}
	if destination == "" {
		return
	}
	if found := p.digest(destination); found == "" || digest != "" && digest != found {
		p.t.Errorf("%s has %q, the result is %q", destination, found, digest)
	}
}

// runPod makes a Pod, which must succeed.
func (p *place) runPod(text string) {
	p.t.Helper()
	name := p.create(text)
	if phase := p.podPhase(name); phase != "Succeeded" {
		logs, err := p.node.Kubectl(p.t.Context(), "", "logs", name, "--all-containers", "--tail=60", "--prefix", "-n", p.namespace)
		p.t.Fatalf("Pod %s: %s\n%s%v", name, phase, logs, err)
	}
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
	p.configure("tekton-pipelines", "feature-flags", "set-security-context", "true", "false")
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

// The same of Argo's own containers, where the ConfigMap of the controller says what the sample tells people to write there. It is alone on the node, for
// the ConfigMap is the cluster's.
func TestRestrictedWorkflow(t *testing.T) {
	p := newPlace(t, "restricted")
	sample := readFile(t, "../../workflows/kaniko-go/samples/restricted.yaml")
	_, executor, ok := strings.Cut(sample, "\n#   executor: |\n#     ")
	executor, _, _ = strings.Cut(executor, "\n")
	if !ok {
		t.Fatal("the sample does not say any more what the ConfigMap needs")
	}
	p.configure("argo", "workflow-controller-configmap", "executor", executor+"\n", nil)
	p.install("../../workflows/kaniko-go/kaniko-go.yaml")
	p.credentials("docker-config", node.Password)
	destination := node.PrivateRegistry + "/" + p.namespace + "/static:v1"
	text := siteText(sample, path.Dir(destination), p.serveGit(exampleFiles(t)), "")
	// The controller takes the ConfigMap up when it sees the change; until then the pod is refused, and the workflow ends at once.
	var w workflow
	p.await(shortLimit, "a pod in a restricted namespace", func() (string, bool) {
		w = p.argo(text)
		status := fmt.Sprintf("%+v", w.Status)
		return status, !strings.Contains(status, "violates PodSecurity")
	})
	p.succeeded(w)
	p.imageOutputs(w.node("build").outputs(), destination)
}

// configure gives a key of one of the cluster's ConfigMaps a value, and after the test another one; nil takes the key away.
func (p *place) configure(namespace, name, key string, during, after any) {
	p.t.Helper()
	set := func(value any) {
		// Also after the test's own context has ended.
		ctx, cancel := context.WithTimeout(context.Background(), shortLimit)
		defer cancel()
		patch, err := json.Marshal(map[string]any{"data": map[string]any{key: value}})
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := p.node.Kubectl(ctx, "", "patch", "configmap", name, "-n", namespace, "--type=merge", "-p", string(patch)); err != nil {
			p.t.Error(err)
		}
	}
	p.t.Cleanup(func() { set(after) })
	set(during)
}
