// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"
)

// fixture is one Dockerfile with what a build of it is asked for. Its form on disk is
// that of the golden plans: txtar with Dockerfile, request and images.
type fixture struct {
	dockerfile []byte
	target     string
	args       map[string]string
	labels     map[string]string
	contexts   map[string]string
	ignore     []string
	// platform is "" for that of the builder.
	platform string
	epoch    string
	// images are configurations by reference, or by reference and platform; any is for those not in it.
	images map[string][]byte
	any    []byte
}

// busybox is the image that every name leads to in random cases.
const busybox = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","X=y"],"Cmd":["sh"],"WorkingDir":"/base"},` +
	`"rootfs":{"type":"layers","diff_ids":["sha256:1111"]},"history":[{"created_by":"busybox"}]}`

func newFixture(dockerfile string) *fixture {
	return &fixture{
		dockerfile: []byte(dockerfile),
		args:       map[string]string{}, labels: map[string]string{}, contexts: map[string]string{}, images: map[string][]byte{},
	}
}

func readFixture(t *testing.T, name string) *fixture {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture("")
	for _, file := range archive.Files {
		ref, isImage := strings.CutPrefix(file.Name, "image ")
		switch {
		case file.Name == "Dockerfile":
			f.dockerfile = file.Data
		case file.Name == "request":
			f.request(t, string(file.Data))
		case file.Name == "anyimage":
			f.any = []byte(busybox)
		case isImage:
			f.images[ref] = file.Data
		}
	}
	return f
}

func (f *fixture) request(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		verb, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		key, pair, _ := strings.Cut(value, "=")
		switch verb {
		case "target":
			f.target = value
		case "arg":
			f.args[key] = pair
		case "label":
			f.labels[key] = pair
		case "context":
			f.contexts[key] = pair
		case "ignore":
			f.ignore = append(f.ignore, value)
		case "platform":
			f.platform = value
		case "epoch":
			f.epoch = value
		case "source-epoch", "build-platform":
			t.Skip(verb + " is not for the oracle")
		default:
			t.Fatalf("request: unknown line %q", line)
		}
	}
}

// write is the inverse of readFixture.
func (f *fixture) write() []byte {
	var request strings.Builder
	line := func(verb, value string) {
		if value != "" {
			fmt.Fprintf(&request, "%s %s\n", verb, value)
		}
	}
	line("target", f.target)
	for _, verb := range []struct {
		name  string
		pairs map[string]string
	}{{"arg", f.args}, {"label", f.labels}, {"context", f.contexts}} {
		for _, key := range slices.Sorted(maps.Keys(verb.pairs)) {
			line(verb.name, key+"="+verb.pairs[key])
		}
	}
	for _, pattern := range f.ignore {
		line("ignore", pattern)
	}
	line("platform", f.platform)
	line("epoch", f.epoch)
	archive := &txtar.Archive{Files: []txtar.File{
		{Name: "Dockerfile", Data: f.dockerfile},
		{Name: "request", Data: []byte(request.String())},
	}}
	if f.any != nil {
		archive.Files = append(archive.Files, txtar.File{Name: "anyimage"})
	}
	for _, ref := range slices.Sorted(maps.Keys(f.images)) {
		archive.Files = append(archive.Files, txtar.File{Name: "image " + ref, Data: f.images[ref]})
	}
	return txtar.Format(archive)
}

// image finds a configuration. One that does not say what platform it is for is for the one asked for.
func (f *fixture) image(ref string, platform ocispec.Platform) ([]byte, error) {
	config, ok := f.images[ref+" "+platforms.FormatAll(platform)]
	if !ok {
		config, ok = f.images[ref]
	}
	if !ok && f.any == nil {
		return nil, fmt.Errorf("not found for %s", platforms.FormatAll(platform))
	}
	if !ok {
		config = f.any
	}
	var fields map[string]any
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, err
	}
	if fields["architecture"] == nil {
		fields["architecture"], fields["os"] = platform.Architecture, platform.OS
		if platform.Variant != "" {
			fields["variant"] = platform.Variant
		}
	}
	return json.Marshal(fields)
}

// outcome is what one of the two sides makes of a fixture, as text.
type outcome struct {
	config, graph, warnings string
	err                     error
}

// graph is operations as text, each after its inputs and each once.
type graph struct {
	lines []string
	known map[string]int
}

func newGraph() *graph { return &graph{known: map[string]int{}} }

// add gives the number of an operation.
func (g *graph) add(text string) string {
	n, ok := g.known[text]
	if !ok {
		n = len(g.lines)
		g.known[text] = n
		g.lines = append(g.lines, text)
	}
	return fmt.Sprintf("#%d", n)
}

func (g *graph) String() string {
	var b strings.Builder
	for i, line := range g.lines {
		fmt.Fprintf(&b, "#%d %s\n", i, line)
	}
	return b.String()
}

const nothing = "scratch"
