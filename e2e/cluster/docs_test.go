// SPDX-License-Identifier: Apache-2.0

//go:build cluster

package cluster

import (
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/cluster/node"
)

// The first build of docs/tekton.md and docs/argo.md, command by command, in a namespace in which nobody has done anything before.
func TestFirstBuild(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ page, kind string }{{"tekton.md", "pipelinerun"}, {"argo.md", "workflow"}} {
		t.Run(c.page, func(t *testing.T) {
			t.Parallel()
			p := newNamespace(t, "baseline")
			examples := p.serveGit(exampleFiles(t))
			team := node.PrivateRegistry + "/" + p.namespace
			created := ""
			for _, command := range commands(t, "../../docs/"+c.page, "## The first build in five minutes") {
				if out := p.follow(command, team, examples); strings.Contains(command, " create -f ") {
					created = out
				}
			}
			_, name, ok := strings.Cut(strings.TrimSuffix(strings.TrimSpace(created), " created"), "/")
			if !ok {
				t.Fatalf("no command has started a run: %q", created)
			}
			if c.kind == "workflow" {
				p.succeeded(p.awaitWorkflow(name))
			} else if r := p.awaitRun(c.kind, name); !r.succeeded() {
				t.Fatalf("%s: %s\n%s", r.reason(), r.message(), p.runLogs(r))
			}
			if p.digest(team+"/hello:v1") == "" {
				t.Errorf("nothing at %s/hello:v1", team)
			}
		})
	}
}

// commands are the commands of a section of a page, but for those that only watch.
func commands(t *testing.T, page, heading string) []string {
	t.Helper()
	_, section, ok := strings.Cut(readFile(t, page), heading+"\n")
	if !ok {
		t.Fatalf("%s has no %q", page, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var found []string
	for line := range strings.Lines(section) {
		command, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " #")
		if strings.HasPrefix(command, "    kubectl ") && !strings.HasSuffix(strings.TrimSpace(command), " -w") {
			found = append(found, command)
		}
	}
	if len(found) < 3 {
		t.Fatalf("%s has only the commands %q under %q", page, found, heading)
	}
	return found
}

// follow carries out a command of the documentation, with this site's names.
func (p *place) follow(command, team, examples string) string {
	p.t.Helper()
	command = strings.NewReplacer("https://raw.githubusercontent.com/kaniko-go/kaniko-go/v0.1.0/", "", "registry.example.com", node.PrivateRegistry,
		"docker-username=me", "docker-username="+node.User, `"$PASSWORD"`, node.Password, "NAMESPACE", p.namespace, "'", "").Replace(command)
	args := strings.Fields(command)[1:]
	input := ""
	for i, arg := range args {
		if i > 0 && args[i-1] == "-f" {
			input, args[i] = p.local(siteText(readFile(p.t, "../../"+arg), team, examples, examples)), "-"
		}
	}
	return p.kubectl(input, append(args, "-n", p.namespace)...)
}
