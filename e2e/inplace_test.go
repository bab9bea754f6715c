// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// alike are Dockerfiles that must give the same digest in place and in namespaces.
func alike() map[string]files {
	return map[string]files{
		"one stage": {
			"Dockerfile": "ARG BASE\nFROM ${BASE}\nCOPY a.txt /data/\nRUN echo made >/data/b.txt && rm /data/a.txt && mkdir -p /new/dir && chmod 700 /new/dir && ln -s b.txt /data/link && mkfifo /new/pipe\nRUN ln /data/b.txt /data/hard && ln /data/hard /data/third && chown 1:2 /data/b.txt && chmod 4755 /data/hard\n",
			"a.txt":      "a\n",
		},
		"stages in turn": {
			"Dockerfile": "ARG BASE\nFROM ${BASE} AS one\nRUN mkdir -p /out/deep && echo one >/out/one && echo x >/out/deep/x && ln /out/one /out/two\n" +
				"FROM ${BASE} AS two\nRUN test ! -e /out && echo two >/two && rm /bin/vi\n" +
				"FROM one AS three\nRUN test -e /out/one && test ! -e /two && echo more >>/out/one\n" +
				"FROM ${BASE}\nRUN test ! -e /out && test ! -e /two && test -e /bin/vi\nCOPY --from=one /out /one/\nCOPY --from=two /two /\nRUN cat /one/one /two >/both\nCOPY --from=three /out/one /three\nRUN test \"$(cat /both)\" = \"$(printf 'one\\ntwo\\n')\"\n",
		},
		"user and workdir": {
			"Dockerfile": "ARG BASE\nFROM ${BASE}\nWORKDIR /home/app\nRUN chown 1500:1500 . && mkdir -p /etc && echo app:x:1500:1500::/home/app:/bin/sh >>/etc/passwd\nUSER app\nRUN id -u >id && umask >>id && pwd >>id && env | sort >>id && cat /proc/self/status | grep -E 'CapEff|CapPrm|CapInh|CapAmb' >>id\n",
		},
		"links where mounts are": {
			"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN rm -rf /var/run && mkdir -p /run /var && touch /run/made && ln -s /run /var/run\nRUN echo 1 >/run/x && echo 2 >/var/run/y\nRUN test -e /var/run/y\n",
		},
	}
}

// TestInPlaceGivesTheSame holds the two isolations to one digest, wherever the work directory is, and the container to its
// state before.
func TestInPlaceGivesTheSame(t *testing.T) {
	w := newWorld(t)
	for name, context := range alike() {
		t.Run(name, func(t *testing.T) {
			directory := context.write(t)
			more := map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
			apart := w.Host + "/apart:1"
			o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(directory, apart, more)}.Run(t)
			mustSucceed(t, o, apart)
			for place, dir := range map[string]string{"volume": "", "root": "/kaniko/work"} {
				c := testenv.NewContainer(t, binary)
				c.Mount(t, directory, "/workspace")
				c.Mount(t, testenv.Dir(t), "/run/secrets/kubernetes.io/serviceaccount")
				c.Mount(t, testenv.Dir(t), "/mnt/odd [a]*\\ \t")
				before := c.Files(t)
				env := w.env("/workspace", w.Host+"/inplace:1", more)
				env["KANIKO_ISOLATION"] = "inplace"
				if dir != "" {
					env["KANIKO_DIR"] = dir
				}
				o2 := testenv.Build{Container: c, Env: env}.Run(t)
				mustSucceed(t, o2, w.Host+"/inplace:1")
				if diff := cmp.Diff(o.Results["IMAGE_DIGEST"], o2.Results["IMAGE_DIGEST"]); diff != "" {
					t.Errorf("work directory on %s: the digest differs (-apart +in place):\n%s\n%s", place, diff, difference(t, apart, w.Host+"/inplace:1"))
				}
				if diff := cmp.Diff(before, c.Files(t)); diff != "" {
					t.Errorf("work directory on %s: the container's root is not what it was:\n%s", place, diff)
				}
			}
		})
	}
}

// difference lists what two images have and the other has not.
func difference(t *testing.T, a, b string) string {
	t.Helper()
	return cmp.Diff(describe(t, a), describe(t, b))
}

func describe(t *testing.T, ref string) []string {
	t.Helper()
	image, err := testenv.Pull(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for archive := tar.NewReader(r); ; {
			h, err := archive.Next()
			if err != nil {
				break
			}
			content, _ := io.ReadAll(archive)
			if len(content) > 200 {
				content = content[:200]
			}
			out = append(out, fmt.Sprintf("%d %s %c %o %d:%d %v %q -> %q %q", i, h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.PAXRecords, h.Linkname, content))
		}
		_ = r.Close()
	}
	return out
}

// TestInPlaceRefuses: where the root is not ours, the build ends before anything is changed.
func TestInPlaceRefuses(t *testing.T) {
	w := newWorld(t)
	directory := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN test ! -e /srv\n"}.write(t)
	c := testenv.NewContainer(t, binary)
	c.Write(t, "/srv/theirs.txt", "theirs")
	c.Mount(t, directory, "/workspace")
	before := c.Files(t)
	env := w.env("/workspace", w.Host+"/refused:1", map[string]string{"KANIKO_ISOLATION": "inplace"})
	o := testenv.Build{Container: c, Env: env}.Run(t)
	mustFail(t, o, 7)
	if !strings.Contains(o.Cause, "/srv/theirs.txt") || !strings.Contains(o.Cause, "KANIKO_FORCE") {
		t.Errorf("the cause names neither the file nor the way out: %s", o.Cause)
	}
	if diff := cmp.Diff(before, c.Files(t)); diff != "" {
		t.Errorf("the container's root is not what it was:\n%s", diff)
	}
	env["KANIKO_FORCE"] = "true"
	mustSucceed(t, testenv.Build{Container: c, Env: env}.Run(t), w.Host+"/refused:1")
	if diff := cmp.Diff(before, c.Files(t)); diff != "" {
		t.Errorf("the container's root is not what it was after a build by force:\n%s", diff)
	}
}
