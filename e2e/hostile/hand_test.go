// SPDX-License-Identifier: Apache-2.0

package hostile_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/hostile"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// handCase is a hostile image, context or Dockerfile by hand.
type handCase struct {
	name string
	// base are entries on top of the base.
	base []hostile.Entry
	// text follows FROM. OUTSIDE stands for the canaries' directory, SERVER for a server that answers with hostile things.
	text string
	// context makes the build context.
	context func(dir string) error
	env     map[string]string
	code    int
	// says is part of the cause, or, of a good build, a line or part of a line of the image's description.
	says string
	// never is in no good image.
	never string
}

func link(name, to string) hostile.Entry {
	return hostile.Entry{Name: name, Type: '2', Link: to, Mode: 0o777}
}

func file(name, data string) hostile.Entry {
	return hostile.Entry{Name: name, Type: '0', Mode: 0o644, Data: data}
}

func dir(name string) hostile.Entry { return hostile.Entry{Name: name, Type: '5', Mode: 0o755} }

func files(m map[string]string) func(string) error {
	return func(dir string) error {
		for name, data := range m {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
}

func images(outside string) []handCase {
	fifo := hostile.Entry{Name: "etc/passwd", Type: '6', Mode: 0o644}
	zero := hostile.Entry{Name: "etc/passwd", Type: '3', Mode: 0o644, Major: 1, Minor: 5}
	long := file("etc/passwd", strings.Repeat("x", 64<<10)+"\napp:x:7:8::/:/bin/sh\n")
	large := hostile.Entry{Name: "etc/passwd", Type: '0', Sparse: "1.0", Size: 1 << 30, Pieces: []hostile.Piece{{Offset: 1 << 29, Data: "x"}}}
	const user = "USER app\nRUN id -u >/tmp/id || true\n"
	tmp := hostile.Entry{Name: "tmp", Type: '5', Mode: 0o1777}
	return []handCase{
		{name: "T14 dev/full copied", base: []hostile.Entry{{Name: "dev/full", Type: '3', Mode: 0o666, Major: 1, Minor: 7}}, text: "COPY --from=HOSTILE /dev/full /copied\nRUN test -d /\n", says: "3    0666 0:0 /copied"},
		{name: "T24 passwd is a link out", base: []hostile.Entry{link("etc/passwd", "/proc/self/environ"), tmp}, text: user, code: 4, says: "app"},
		{name: "T24 passwd is a link to a canary", base: []hostile.Entry{link("etc/passwd", outside+"/secret"), tmp}, text: user, code: 4, says: "app"},
		{name: "T24 passwd is a fifo", base: []hostile.Entry{fifo, tmp}, text: user, code: 4, says: "regular file"},
		{name: "T24 passwd is a device", base: []hostile.Entry{zero, tmp}, text: user, code: 4, says: "regular file"},
		{name: "T24 passwd has a gibibyte", base: []hostile.Entry{large, tmp}, text: user, code: 4, says: "limit"},
		{name: "T24 passwd has a long line", base: []hostile.Entry{long, tmp}, text: user, code: 4, says: "too long"},
		{name: "T24 chown to what is no passwd", base: []hostile.Entry{fifo}, text: "COPY --chown=app Dockerfile /f\n", code: 4, says: "regular file"},
		{
			name: "T25 resolv.conf, hosts and friends are links out",
			base: []hostile.Entry{
				link("etc/resolv.conf", outside+"/f"), link("etc/hosts", "../../../../../.."+outside+"/secret"), link("etc/nsswitch.conf", "/proc/self/mem"),
				link("etc/localtime", "/dev/zero"), link("etc/ssl", outside), link("etc/mtab", "/proc/self/mounts"),
			},
			text: "RUN cat /etc/resolv.conf /etc/hosts >/dev/null; echo done >/made\n", says: `/made "done\n"`,
		},
		{
			name: "T25 our own directories are links out",
			base: []hostile.Entry{link("kaniko", outside), link("workspace", outside), link("tekton", outside), link("var/run", "/run"), link("results", "/")},
			text: "RUN echo x >/kaniko/planted; mkdir -p /run/x; echo done >/made\n", says: `/made "done\n"`,
		},
		{name: "T23 WorkingDir through a link out", base: []hostile.Entry{link("w", "../../.."+outside)}, text: "WORKDIR /w/sub\nRUN echo x >f; pwd >/made\n", says: "/made"},
		{name: "T23 USER of a path", text: "USER ../../x\nRUN true\n", code: 4, says: "../../x"},
	}
}

func sources(outside string) []handCase {
	links := func(dir string) error {
		for name, to := range map[string]string{"out": outside, "file-out": outside + "/secret", "up": "../../../../../../.." + outside} {
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return os.Mkdir(filepath.Join(dir, "sub"), 0o755)
	}
	return []handCase{
		{name: "C01 ../x", text: "COPY ../secret /x\n", context: links, code: 4, says: "not found"},
		{name: "C01 absolute", text: "COPY " + outside + "/secret /x\n", context: links, code: 4, says: "not found"},
		{name: "C01 link to outside", text: "COPY file-out /x\n", context: links, code: 4, says: "file-out"},
		{name: "C01 link to an outside directory", text: "COPY out/secret /x\n", context: links, code: 4, says: "out/secret"},
		{name: "C01 links below a directory stay links", text: "COPY . /all/\n", context: links, says: "/all/out -> " + outside, never: "canary"},
		{name: "C01 .. in a wildcard", text: "COPY */../../secret /x\n", context: links, code: 4, says: "secret"},
		{name: "C01 --from with ..", text: "COPY --from=HOSTILE ../../" + outside + "/secret /x\n", code: 4, says: "not found"},
		{name: "C02 source ..", text: "RUN --mount=type=bind,source=../P,target=/m cat /m/secret >/got\n", context: links, code: 4, says: "P"},
		{name: "C02 source through a link", text: "RUN --mount=type=bind,source=out,target=/m cat /m/secret >/got\n", context: links, code: 4, says: "out"},
		{name: "C02 target is the root", text: "RUN --mount=type=bind,target=/ true\n", code: 3, says: "/"},
		{name: "C02 target is a link out", base: []hostile.Entry{link("m", outside)}, text: "RUN --mount=type=bind,target=/m,rw echo x >/m/secret; echo done >/made\n", says: "/made", never: "canary"},
		{name: "C02 writes are dropped", text: "RUN --mount=type=bind,target=/m,rw echo changed >/m/a\nCOPY a /a\n", context: files(map[string]string{"a": "as it was"}), says: `/a "as it was"`},
		{
			name: "C03 target is a link of the image", base: []hostile.Entry{link("run/secrets", "/leak"), dir("leak/"), link("direct", "/leak/direct")},
			text: "RUN --mount=type=secret,id=s --mount=type=secret,id=s,target=/direct test -s /run/secrets/s && echo done >/made\n",
			env:  map[string]string{"KANIKO_SECRET": "id=s,env=SECRET_OF_THE_TEST", "SECRET_OF_THE_TEST": "never-in-an-image"}, says: "/made", never: "never-in-an-image",
		},
		{name: "C03 secret that is not there", text: "RUN --mount=type=secret,id=../../P/secret,required=true true\n", code: 4, says: "not found"},
		{name: "C04 id with ..", text: "RUN --mount=type=cache,id=../../P,target=/c echo x >/c/f && echo done >/made\n", says: "/made"},
		{name: "C04 absolute id", text: "RUN --mount=type=cache,id=" + outside + ",target=/c echo x >/c/f && echo done >/made\n", says: "/made"},
		{name: "C04 target is a link out", base: []hostile.Entry{link("c", outside)}, text: "RUN --mount=type=cache,target=/c echo x >/c/secret; echo done >/made\n", says: "/made"},
		{
			name: "C06 times before 1970 and after 2262", text: "COPY . /all/\n", says: "/all/old",
			context: func(dir string) error {
				if err := files(map[string]string{"old": "o", "new": "n"})(dir); err != nil {
					return err
				}
				if err := os.Chtimes(filepath.Join(dir, "new"), time.Unix(1<<34-1, 0), time.Unix(1<<34-1, 0)); err != nil {
					return err
				}
				return os.Chtimes(filepath.Join(dir, "old"), time.Unix(-1_000_000, 0), time.Unix(-1_000_000, 0))
			},
		},
		{
			name: "C06 fifo and device", text: "COPY . /all/\nRUN test -p /all/fifo\n", says: "/all/fifo",
			context: func(dir string) error {
				if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
					return err
				}
				return syscall.Mknod(filepath.Join(dir, "zero"), syscall.S_IFCHR|0o666, 1<<8|5)
			},
		},
		{
			name: "C07 patterns like **/**/** over a deep tree", text: "COPY . /all/\n", says: "/all/kept",
			context: func(dir string) error {
				var b strings.Builder
				for i := range 2000 {
					fmt.Fprintf(&b, "**/a/**/b%d/**/*x*y*\n!**/**/c%d/**\n", i, i)
				}
				return files(map[string]string{".dockerignore": b.String(), "kept": "k", strings.Repeat("a/", 60) + "f": "f"})(dir)
			},
		},
		{name: "C09 to a file", text: "ADD SERVER/to-file /x\n", code: 4, says: "file"},
		{name: "C09 to metadata of a cloud", text: "ADD SERVER/to-metadata /x\n", code: 4, says: "169.254.169.254"},
		{name: "C09 in a circle", text: "ADD SERVER/circle /x\n", code: 4, says: "redirect"},
		{name: "C09 name of ..", text: "ADD SERVER/name/%2e%2e /x/\n", says: "file 0600 0:0 /x/__unnamed__"},
		{name: "C09 named by the server", text: "ADD SERVER/disposition /x/\n", says: "/x/disposition", never: "planted"},
		{name: "C09 wrong checksum", text: "ADD --checksum=sha256:" + strings.Repeat("0", 64) + " SERVER/disposition /x/\n", code: 4, says: "sha256:"},
		{name: "C05 heredoc names", text: "COPY <<../../P/secret <<name /x/\nforged\n../../P/secret\nforged\nname\n", code: 3},
	}
}

// trickster answers as no server should.
func trickster() http.Handler {
	mux := http.NewServeMux()
	to := func(url string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", url)
			w.WriteHeader(http.StatusFound)
		}
	}
	mux.HandleFunc("/to-file", to("file:///etc/passwd"))
	mux.HandleFunc("/to-metadata", to("http://169.254.169.254/latest/meta-data"))
	mux.HandleFunc("/circle", to("/circle"))
	mux.HandleFunc("/disposition", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Disposition", `attachment; filename="../../planted"`)
		_, _ = w.Write([]byte("content"))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/..") { // which a mux would clean
			_, _ = w.Write([]byte("content"))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// TestHand are the hand cases of images and contexts that need the whole binary. Layers alone are tried beside unpack, heredocs
// and sizes of Dockerfiles beside plan, servers beside fetch, result files beside results.
func TestHand(t *testing.T) {
	w := newWorld(t)
	canaries, err := hostile.NewCanaries(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(trickster())
	t.Cleanup(server.Close)
	for i, tt := range slices.Concat(images(canaries.Outside), sources(canaries.Outside)) {
		t.Run(tt.name, func(t *testing.T) {
			base := w.image(t, hostile.Case{Layers: [][]hostile.Entry{tt.base}})
			reference := fmt.Sprintf("%s/hand:%d", w.host, i)
			if err := testenv.Push(t.Context(), base, reference); err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer("HOSTILE", reference, "OUTSIDE", canaries.Outside, "SERVER", server.URL).Replace(tt.text)
			b := build{text: "FROM " + reference + "\n" + text, dir: testenv.Dir(t)}
			if tt.context != nil {
				if err := tt.context(b.dir); err != nil {
					t.Fatal(err)
				}
			}
			env := b.env(t, w, w.host+"/out:1")
			env["KANIKO_DIR"] = filepath.Join(canaries.Dir, "root")
			env["KANIKO_CACHE_DIR"] = filepath.Join(canaries.Dir, "root-cache")
			for k, v := range tt.env {
				env[k] = v
			}
			o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
			judge(t, o)
			if o.Code != tt.code || tt.code != 0 && !strings.Contains(o.Cause, tt.says) {
				t.Errorf("exit code %d, want %d with %q\n%s", o.Code, tt.code, tt.says, o.Log)
			}
			if o.Wall > 30*time.Second {
				t.Errorf("it took %v", o.Wall)
			}
			if err := canaries.Check(); err != nil {
				t.Fatal(err)
			}
			if o.Code != 0 {
				return
			}
			img, err := testenv.Pull(t.Context(), w.host+"/out:1")
			if err != nil {
				t.Fatal(err)
			}
			got, err := testenv.Describe(img, base)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got, tt.says) || tt.never != "" && strings.Contains(got, tt.never) {
				t.Errorf("want %q and never %q:\n%s", tt.says, tt.never, got)
			}
		})
	}
}

// TestResultsAreOurs is O02: what lies where the results go, and links of the image to there, change nothing.
func TestResultsAreOurs(t *testing.T) {
	w := newWorld(t)
	canaries, err := hostile.NewCanaries(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	results := filepath.Join(canaries.Dir, "root-results")
	if err := os.Mkdir(results, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(canaries.Outside, "secret"), filepath.Join(results, "IMAGE_DIGEST")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(results, "IMAGE_URL"), 0o644); err != nil {
		t.Fatal(err)
	}
	base := w.image(t, hostile.Case{Layers: [][]hostile.Entry{{link("results", results)}}})
	if err := testenv.Push(t.Context(), base, w.host+"/hand:results"); err != nil {
		t.Fatal(err)
	}
	b := build{text: "FROM " + w.host + "/hand:results\nRUN mkdir -p " + results + " && for f in IMAGE_DIGEST IMAGE_URL; do echo forged >" + results + "/$f; done; (while sleep 0.05; do echo forged >" + results + "/IMAGE_URL; done &)\n"}
	env := b.env(t, w, w.host+"/out:1")
	env["KANIKO_RESULTS_DIR"] = results
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: env}.Run(t)
	if judge(t, o); o.Code != 0 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	img, err := testenv.Pull(t.Context(), w.host+"/out:1")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"IMAGE_DIGEST": digest.String(), "IMAGE_URL": w.host + "/out:1"} {
		st, err := os.Lstat(filepath.Join(results, name))
		if err != nil || st.Mode() != fs.FileMode(0o644) {
			t.Fatalf("%s: %v, %v", name, st, err)
		}
		if got, err := os.ReadFile(filepath.Join(results, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if err := canaries.Check(); err != nil {
		t.Error(err)
	}
}
