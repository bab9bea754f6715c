// SPDX-License-Identifier: Apache-2.0

package hostile_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kaniko-go/kaniko-go/e2e/hostile"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// sample is how many cases of the grammar go through the binary, each by every sink.
var sample = flag.Int("hostile.sample", 8, "so many cases of the hostile grammar go through the built binary, by every sink")

// binary is the program under test.
var binary string

func TestMain(m *testing.M) {
	testenv.Main(m, func(_ context.Context, path, _ string) error {
		binary = path
		return nil
	})
}

// world is a registry, a base, and a server of files.
type world struct {
	host  string
	base  v1.Image
	files map[string][]byte
	url   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.Need(t, "busybox")
	base, err := testenv.Busybox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{base: base, files: map[string][]byte{}}
	reg := httptest.NewServer(registry.New(registry.Logger(stdlog.New(io.Discard, "", 0))))
	t.Cleanup(reg.Close)
	w.host = strings.TrimPrefix(reg.URL, "http://")
	files := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, ok := w.files[r.URL.Path]
		if !ok {
			http.NotFound(rw, r)
			return
		}
		_, _ = rw.Write(b)
	}))
	t.Cleanup(files.Close)
	w.url = files.URL
	return w
}

// image is the base with the case's layers on it.
func (w *world) image(t *testing.T, c hostile.Case) v1.Image {
	t.Helper()
	var layers []v1.Layer
	for _, entries := range c.Layers {
		layers = append(layers, static.NewLayer(hostile.Tar(entries), types.OCIUncompressedLayer))
	}
	img, err := mutate.AppendLayers(w.base, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// look is a RUN that lists the tree and follows the links that are in it. What it cannot do, it leaves.
const look = `RUN find / -xdev -not -path '/proc/*' -not -path '/sys/*' -not -path '/dev/*' | sort | md5sum >/listed; for f in x f d P x/f x/secret P/secret dst/x dst/f; do cat /$f >/dev/null </dev/null & done; sleep 0.1; true
`

// scrawl writes through the links. In place a RUN may: it is root beside whatever the pod has mounted.
const scrawl = `RUN for f in x/f dst/x/f dst/d/f; do (echo used >>/$f) & done; sleep 0.1; true
`

// sinks are the Dockerfiles by which a case comes into a build.
func (w *world) sinks(t *testing.T, c hostile.Case, n int) map[string]build {
	t.Helper()
	reference := fmt.Sprintf("%s/hostile:%d", w.host, n)
	img := w.image(t, c)
	if err := testenv.Push(t.Context(), img, reference); err != nil {
		t.Fatal(err)
	}
	dir := testenv.Dir(t)
	p, err := layout.Write(filepath.Join(dir, "layout"), empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	local, remote := "", ""
	for i, entries := range c.Layers {
		name := fmt.Sprintf("%d-%d.tar", n, i)
		data := hostile.Tar(entries)
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
		w.files["/"+name] = data
		local += "ADD " + name + " /dst/\n"
		remote += "ADD --unpack=true " + w.url + "/" + name + " /dst/\n"
	}
	const from = "ARG BASE\nFROM ${BASE}\n"
	return map[string]build{
		"base layer":           {text: "FROM " + reference + "\n" + look},
		"copied from an image": {text: from + "COPY --from=" + reference + " / /dst/\nCOPY --from=" + reference + " /x* /f* /more/\n" + look},
		"ADD a local tar":      {text: from + local + look, dir: dir},
		"ADD a tar by URL":     {text: from + remote + look},
		"a layout as a base":   {text: "FROM it\n" + look, dir: dir, context: "it=oci-layout://" + string(p) + "@" + digest.String()},
		"ADD over what RUN planted": {
			text: from + "RUN mkdir -p /dst/d && ln -s / /dst/x && ln -s ../../../.. /dst/P && ln -s /proc/1/root /dst/later\n" + local + look, dir: dir,
		},
	}
}

// build is a Dockerfile, the directory of its context and a named context.
type build struct{ text, dir, context string }

// env writes the Dockerfile and gives the environment.
func (b build) env(t *testing.T, w *world, destination string) map[string]string {
	t.Helper()
	if b.dir == "" {
		b.dir = testenv.Dir(t)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "Dockerfile"), []byte(b.text), 0o644); err != nil {
		t.Fatal(err)
	}
	base := w.host + "/base:1"
	if err := testenv.Push(t.Context(), w.base, base); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"KANIKO_CONTEXT": b.dir, "KANIKO_DESTINATION": destination, "KANIKO_BUILD_ARG": "BASE=" + base, "KANIKO_RUN_TIMEOUT": "30s"}
	if b.context != "" {
		env["KANIKO_BUILD_CONTEXT"] = b.context
	}
	return env
}

// judge holds the end of a build with a hostile case to what is owed: it is good, or a line says what is wrong.
func judge(t *testing.T, o testenv.Outcome) {
	t.Helper()
	if !slices.Contains([]int{0, 3, 4, 8}, o.Code) {
		t.Errorf("exit code %d\n%s", o.Code, o.Log)
	}
	if bytes.ContainsAny([]byte(o.Cause), "\x00\x1b\x07") || o.Code != 0 && len(strings.Fields(o.Cause)) < 4 {
		t.Errorf("the cause is not a line of text: %q", o.Cause)
	}
	for _, bad := range []string{"panic:", "goroutine ", "runtime error"} {
		if strings.Contains(o.Log, bad) {
			t.Errorf("the log holds %q:\n%s", bad, o.Log)
		}
	}
	if len(o.Left) > 0 {
		t.Errorf("left behind: %q", o.Left)
	}
}

// spread picks n of the cases, of all kinds, always the same. Three of four are such that are not refused: a RUN meets them.
func spread(cases []hostile.Case, n int) []hostile.Case {
	var picked []hostile.Case
	for i := 0; len(picked) < n; i++ {
		c := cases[(i*7919+i*i*13+5)%len(cases)]
		m := hostile.NewModel()
		good := true
		for _, l := range c.Layers {
			good = good && m.Apply(l) == nil
		}
		if good || len(picked)%4 == 0 {
			picked = append(picked, c)
		}
	}
	return picked
}

// TestSinks has cases come into builds of the built binary in every way, in namespaces, with a RUN that looks at them. The work
// directory lies among canaries.
func TestSinks(t *testing.T) {
	w := newWorld(t)
	canaries, err := hostile.NewCanaries(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	codes := map[int]int{}
	for i, c := range spread(hostile.Cases(canaries.Outside), *sample) {
		for sink, b := range w.sinks(t, c, i) {
			t.Run(fmt.Sprintf("%s, %s", sink, c.Name), func(t *testing.T) {
				b.text += scrawl
				env := b.env(t, w, w.host+"/out:1")
				env["KANIKO_DIR"] = filepath.Join(canaries.Dir, "root")
				o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
				judge(t, o)
				codes[o.Code]++
				if err := canaries.Check(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	t.Logf("exit codes: %v", codes)
}

// TestSinksInPlace is the same in the container's own root, where a protected directory is mounted at /P.
func TestSinksInPlace(t *testing.T) {
	w := newWorld(t)
	canaries, err := hostile.NewCanaries(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range spread(hostile.Cases("/P"), max(2, *sample/3)) {
		for sink, b := range w.sinks(t, c, i) {
			t.Run(fmt.Sprintf("%s, %s", sink, c.Name), func(t *testing.T) {
				container := testenv.NewContainer(t, binary)
				env := b.env(t, w, w.host+"/out:1")
				container.Mount(t, env["KANIKO_CONTEXT"], env["KANIKO_CONTEXT"])
				container.Mount(t, canaries.Outside, "/P")
				before := container.Files(t)
				env["KANIKO_ISOLATION"] = "inplace"
				judge(t, testenv.Build{Container: container, Env: env}.Run(t))
				if err := canaries.Check(); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(before, container.Files(t)); d != "" {
					t.Errorf("the container's root is not what it was:\n%s", d)
				}
			})
		}
	}
}
