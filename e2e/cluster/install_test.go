// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// The catalogue is one file that kubectl applies, in both ways in which kubectl does that, though it holds more than Kubernetes knows.
func TestCatalog(t *testing.T) {
	t.Parallel()
	for _, way := range []struct{ name, flag string }{{"client", "--server-side=false"}, {"server", "--server-side=true"}} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "baseline")
			p.kubectl(p.local(readFile(t, "../../catalog.yaml")), "apply", way.flag, "-n", p.namespace, "-f", "-")
			p.files("context", hello(""))
			destination := node.Registry + "/" + p.namespace + "/catalog:1"
			p.pushed(p.tekton("taskrun", taskRun(destination, "")), destination)
		})
	}
}

// drop is the Pod that kaniko's documentation has, with only the image replaced: credentials and cloud credentials as volumes, flags as arguments.
const drop = `apiVersion: v1
kind: Pod
metadata: {generateName: kaniko-}
spec:
  restartPolicy: Never
  containers:
  - name: kaniko
    image: $KANIKO_GO
    args:
    - --dockerfile=Dockerfile
    - --context=dir:///workspace
    - --destination=$IMAGE
    - --build-arg=WHOM=an old pod
    - --insecure-registry=$PRIVATE
    - --insecure-registry=$REGISTRY
    - --insecure-registry=$INSECURE
    - --snapshot-mode=redo
    - --cache=true
    volumeMounts:
    - {name: context, mountPath: /workspace}
    - {name: docker-config, mountPath: /kaniko/.docker/}
    - {name: aws-secret, mountPath: /root/.aws/}
  volumes:
  - {name: context, configMap: {name: $CONTEXT}}
  - name: docker-config
    secret: {secretName: $SECRET, optional: true, items: [{key: .dockerconfigjson, path: config.json}]}
  - {name: aws-secret, secret: {secretName: aws-secret, optional: true}}
`

// dropped is that Pod for a destination, a ConfigMap as its context, and a secret for the registry.
func dropped(destination, context, secret, insecure string) string {
	return strings.NewReplacer("$IMAGE", destination, "$CONTEXT", context, "$SECRET", cmp.Or(secret, "none"), "$INSECURE", cmp.Or(insecure, node.Registry)).Replace(drop)
}

func TestDropInPod(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "")
	p.files("context", hello(""))
	p.credentials("registry", node.Password)
	p.kubectl("[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = nothing\n", "create", "secret", "generic", "aws-secret", "--from-file=credentials=/dev/stdin", "-n", p.namespace)
	destination := node.PrivateRegistry + "/" + p.namespace + "/old:1"
	name := p.create(dropped(destination, "context", "registry", ""))
	if phase := p.podPhase(name); phase != "Succeeded" {
		t.Fatalf("%s\n%s", phase, p.logs(name, "kaniko"))
	}
	if p.digest(destination) == "" {
		t.Errorf("nothing at %s\n%s", destination, p.logs(name, "kaniko"))
	}
	if got := p.config(destination).Config.Entrypoint; fmt.Sprint(got) != "[/bin/cat /greeting /note]" {
		t.Errorf("entrypoint %q", got)
	}
	if _, message := p.terminated(name); message != "" {
		t.Errorf("a build that succeeded has the message %q", message)
	}
}

// strict is the pod that Pod Security "restricted" asks for.
const strict = `apiVersion: v1
kind: Pod
metadata: {name: strict}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: build
    image: $KANIKO_GO
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    env:
    - {name: KANIKO_CONTEXT, value: /context}
    - {name: KANIKO_DESTINATION, value: "$IMAGE"}
    - {name: KANIKO_INSECURE_REGISTRY, value: $REGISTRY}
    volumeMounts:
    - {name: context, mountPath: /context}
    - {name: work, mountPath: /kaniko/work}
  volumes:
  - {name: context, configMap: {name: context}}
  - {name: work, emptyDir: {}}
`

// Without a RUN nothing is asked of a pod, also in a namespace that enforces it. With one, exit code and log say what is missing.
func TestRestrictedPod(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "restricted")
	destination := node.Registry + "/" + p.namespace + "/strict:1"
	p.files("context", map[string]string{"Dockerfile": "FROM $BASE\nCOPY note /note\nUSER 1000\nENTRYPOINT [\"cat\", \"/note\"]\n", "note": "strict\n"})
	p.apply(strings.ReplaceAll(strict, "$IMAGE", destination))
	if phase := p.podPhase("strict"); phase != "Succeeded" {
		t.Fatalf("%s\n%s", phase, p.logs("strict", "build"))
	}
	if p.digest(destination) == "" {
		t.Errorf("nothing at %s\n%s", destination, p.logs("strict", "build"))
	}
	p.files("context", hello(""))
	with := strings.NewReplacer("$IMAGE", node.Registry+"/"+p.namespace+"/run:1", "name: strict", "name: run").Replace(strict)
	p.apply(with)
	if phase := p.podPhase("run"); phase != "Failed" {
		t.Errorf("a RUN in a restricted pod: %s", phase)
	}
	code, message := p.terminated("run")
	if line := lastLine(p.logs("run", "build")); code != "7" || line != "error: "+message || !strings.Contains(line, "Dockerfile:3") {
		t.Errorf("exit code %s, message %q, last line %q", code, message, line)
	}
}
