// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// alike are Dockerfiles that must give the same digest in place and in namespaces.
func alike() map[string]files {
	return map[string]files{
		"one stage": {
			"Dockerfile": "ARG BASE\nFROM ${BASE}\nCOPY a.txt /data/\nRUN echo made >/data/b.txt && rm /data/a.txt && mkdir -p /new/dir && chmod 700 /new/dir && ln -s b.txt /data/link && mkfifo /new/pipe\nRUN ln /data/b.txt /data/hard && ln /data/hard /data/third && chown 1:2 /data/b.txt && chmod 4755 /data/hard\n",
			"a.txt":      "a\n",
		},
		"hard links": {
			"Dockerfile": "ARG BASE\nFROM ${BASE} AS one\nRUN mkdir /d && echo 1 >/d/a && ln /d/a /d/b && ln /d/a /c\nRUN echo 2 >>/d/a && cat /d/b >/e && test -e /d/b\n" +
				"RUN chmod 600 /c && ln /d/b /d/f && echo 3 >>/d/f\nFROM one\nRUN touch -d @1600000000 /d/b && cat /d/a /d/b /c /d/f >/g\n",
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
		"mounts": {
			"Dockerfile": "ARG BASE\nFROM ${BASE} AS one\nRUN mkdir /out && echo one >/out/one\n" +
				"FROM ${BASE}\nRUN mkdir -p /data /etc /run && echo kept >/run/kept && ln -s data /ln && ln -s /nowhere /dangling && echo kept >/data/file && echo root:x:0:0::/root:/bin/sh >/etc/passwd\n" +
				"RUN --mount=type=bind,target=/ctx/deep cat /ctx/deep/a.txt >/out1\n" +
				"RUN --mount=type=bind,target=/ctx,rw echo x >/ctx/a.txt && cat /ctx/a.txt >/out2\n" +
				"RUN --mount=type=bind,target=/ctx,rw cat /ctx/a.txt >/out3\n" +
				"RUN --mount=type=bind,from=one,source=/out,target=/one cat /one/one >/out4\n" +
				"RUN --mount=type=bind,source=a.txt,target=/data/file cat /data/file >/out5\n" +
				"RUN --mount=type=cache,target=/cache/x mkdir /cache/x/sub && echo hi >/cache/x/sub/f && ln -s f /cache/x/sub/l && echo other >/cache/y\n" +
				"RUN --mount=type=cache,target=/cache/x cp /cache/x/sub/l /out6\n" +
				"RUN --mount=type=cache,target=/cache/x,uid=1500 stat -c %u /cache/x >/out6b\n" +
				"RUN --mount=type=tmpfs,target=/data touch /data/new && test ! -e /data/file && stat -c %a /data >/out7\n" +
				"RUN --mount=type=secret,id=s md5sum </run/secrets/s >/out8 && stat -c '%a %u' /run/secrets/s >>/out8\n" +
				"RUN --mount=type=secret,id=s,target=/etc/passwd,mode=0444,uid=7 md5sum </etc/passwd >/out9\n" +
				"RUN --mount=type=secret,id=s,target=/ln/file md5sum </data/file >/out10\n" +
				"RUN --mount=type=secret,id=s,target=/dangling md5sum </nowhere >/out11\n" +
				"RUN --mount=type=secret,id=s,env=TOKEN echo $TOKEN | md5sum >/out12\n" +
				"RUN --mount=type=tmpfs,target=/run touch /run/x && test ! -e /run/kept && stat -c %a /run >/out12b\nRUN <<END\n#!/bin/sh\necho shebang >/out12c\nEND\n" +
				"RUN <<END\necho script >/out13\nEND\nRUN <<END cat >/out14\ntext\nEND\n" +
				"RUN cat /data/file /etc/passwd /run/kept && test ! -e /run/secrets/s && test ! -e /dev/pipes && test ! -e /ctx && test ! -e /one && rm /ln && ls / | grep -v kaniko\n",
			"a.txt": "a\n",
		},
		"a cache that two stages lock": {
			"Dockerfile": "ARG BASE\nFROM ${BASE} AS one\nRUN echo 1 >/one\nRUN --mount=type=cache,id=c,sharing=locked,target=/c echo one >>/c/log\n" +
				"FROM ${BASE} AS two\nRUN --mount=type=cache,id=c,sharing=locked,target=/c echo two >>/c/log; sleep 0.2\nRUN --mount=type=cache,id=c,sharing=locked,target=/c echo two >>/c/log && echo 2 >/two\n" +
				"FROM ${BASE}\nCOPY --from=one /one /\nCOPY --from=two /two /\nRUN --mount=type=cache,id=c,sharing=locked,target=/c sort /c/log >/three\n",
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
			more := map[string]string{"SOURCE_DATE_EPOCH": "1700000000", "KANIKO_SECRET": "id=s,env=THE_SECRET", "THE_SECRET": "correct horse battery"}
			apart := w.Host + "/apart:1"
			o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(directory, apart, more)}.Run(t)
			mustSucceed(t, o, apart)
			for place, dir := range map[string]string{"volume": "", "root": defaultDir, "overlay": "/kaniko/work"} {
				c := testenv.NewContainer(t, binary)
				c.Mount(t, directory, "/workspace")
				c.Mount(t, testenv.Dir(t), "/run/secrets/kubernetes.io/serviceaccount")
				c.Mount(t, testenv.Dir(t), "/mnt/odd [a]*\\ \t")
				c.Overlay = place == "overlay"
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

// inPlace is a container with a context at /workspace, and what a build in it is asked for.
func (w world) inPlace(t *testing.T, context files, more map[string]string) (*testenv.Container, map[string]string, string) {
	t.Helper()
	c := testenv.NewContainer(t, binary)
	directory := context.write(t)
	c.Mount(t, directory, "/workspace")
	env := w.env("/workspace", w.Host+"/inplace:1", more)
	if _, ok := env["KANIKO_ISOLATION"]; !ok {
		env["KANIKO_ISOLATION"] = "inplace"
	}
	return c, env, directory
}

// TestInPlaceAndMounts: what lies below a mount is nobody's, and whoever relies on it is told.
func TestInPlaceAndMounts(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, dockerfile string
		code             int
		cause            []string
	}{
		{"written by RUN", "RUN echo evil >/workspace/evil\n", 4, []string{"/workspace/evil", "mounted"}},
		{"changed by RUN", "RUN echo evil >/workspace/Dockerfile\n", 4, []string{"/workspace/Dockerfile", "mounted"}},
		{"removed by RUN", "RUN rm /workspace/a.txt\n", 4, []string{"/workspace/a.txt", "mounted"}},
		{"copied and run", "COPY a.txt /workspace/b.txt\nRUN true\n", 7, []string{"/workspace/b.txt", "/workspace is a mount"}},
		{"copied after the last RUN", "RUN true\nCOPY a.txt /workspace/b.txt\n", 0, nil},
		{"working directory", "WORKDIR /workspace\nRUN test -e a.txt\n", 0, nil},
		{"files of the kubelet", "COPY a.txt /etc/hosts\nRUN echo 1.2.3.4 x >>/etc/hosts && echo >>/etc/resolv.conf\n", 0, nil},
		{"what containers have", "RUN echo x >/dev/shm/kaniko-go-test && rm /dev/shm/kaniko-go-test && cat /proc/self/comm\n", 0, nil},
		{"mount on a mount", "RUN --mount=type=tmpfs,target=/workspace true\n", 7, []string{"/workspace"}},
		{"no network", "RUN --network=none true\n", 7, []string{"network"}},
		{"the builder's directory", "COPY a.txt /kaniko/executor\nRUN true\n", 7, []string{"/kaniko/executor"}},
		{"a directory that leads to a mount as a file", "RUN true\nCOPY a.txt /etc\nRUN true\n", 0, nil},
		{"the builder's store", "RUN for f in $(find / -path '*/blobs/sha256/*' -type f 2>/dev/null | grep -v ^/proc); do echo x >>$f; done\n", 8, []string{"blobs/sha256", "changed a file of the builder's own"}},
		{"the builder's program", "RUN cp /kaniko/executor /kaniko/other && mv /kaniko/other /kaniko/executor\n", 8, []string{"/kaniko/executor", "changed a file of the builder's own"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			container, env, _ := w.inPlace(t, files{"Dockerfile": "ARG BASE\nFROM ${BASE}\n" + c.dockerfile, "a.txt": "a\n"}, nil)
			before := container.Files(t)
			o := testenv.Build{Container: container, Env: env}.Run(t)
			if c.code == 0 {
				mustSucceed(t, o, w.Host+"/inplace:1")
			} else {
				mustFail(t, o, c.code, c.cause...)
			}
			if diff := cmp.Diff(before, container.Files(t)); diff != "" && c.code != 8 {
				t.Errorf("the container's root is not what it was:\n%s", diff)
			}
		})
	}
}

// TestInPlaceIsChosen: only where nothing better is permitted, and it says so.
func TestInPlaceIsChosen(t *testing.T) {
	w := newWorld(t)
	context := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN hostname\n"}
	for _, c := range []struct {
		name, isolation string
		unconfined      bool
		code            int
		want            []string
	}{
		{"confined", "auto", false, 0, []string{"isolation: in place", "clone(CLONE_NEWUSER|CLONE_NEWNS) is not permitted", "seccompProfile"}},
		{"unconfined", "auto", true, 0, []string{"isolation: namespace"}},
		{"namespaces or nothing", "namespace", false, 7, []string{"clone(CLONE_NEWUSER|CLONE_NEWNS) is not permitted", "user and mount namespace", "seccomp", "filter"}},
		{"in place although better is there", "inplace", true, 0, []string{"isolation: in place"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			container, env, _ := w.inPlace(t, context, map[string]string{"KANIKO_ISOLATION": c.isolation})
			container.Unconfined = c.unconfined
			o := testenv.Build{Container: container, Env: env}.Run(t)
			if o.Code != c.code {
				t.Fatalf("exit code %d, want %d\n%s", o.Code, c.code, o.Log)
			}
			for _, want := range c.want {
				if !strings.Contains(o.Log, want) {
					t.Errorf("the log does not say %q:\n%s", want, o.Log)
				}
			}
		})
	}
}

// TestInPlaceAfterKill kills the builder at a RUN and builds again in the same container.
func TestInPlaceAfterKill(t *testing.T) {
	w := newWorld(t)
	container, env, directory := w.inPlace(t, files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN --mount=type=secret,id=s,target=/token echo >/made; rm -rf /bin/vi; echo reached-the-$((1+1))nd-line; sleep 300\n"},
		map[string]string{"KANIKO_SECRET": "id=s,env=THE_SECRET", "THE_SECRET": "correct horse battery", "KANIKO_ADD_HOST": "db=10.9.8.7", "KANIKO_DIR": "/kaniko/work"})
	before := container.Files(t)
	o := testenv.Build{Container: container, Env: env, SignalAt: "reached-the-2nd-line", Signal: syscall.SIGKILL}.Run(t)
	if o.Code != 128+9 {
		t.Fatalf("exit code %d\n%s", o.Code, o.Log)
	}
	if diff := cmp.Diff(before, container.Files(t)); diff == "" {
		t.Fatal("the test shows nothing: the root is what it was although the builder was killed")
	}
	if err := os.WriteFile(filepath.Join(directory, "Dockerfile"), []byte("ARG BASE\nFROM ${BASE}\nRUN test ! -e /made && test -e /bin/vi && test ! -e /token && grep -c db /etc/hosts\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustSucceed(t, testenv.Build{Container: container, Env: env}.Run(t), w.Host+"/inplace:1")
	delete(env, "KANIKO_ADD_HOST")
	if diff := cmp.Diff(before, container.Files(t)); diff != "" {
		t.Errorf("the container's root is not what it was:\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(directory, "Dockerfile"), []byte("ARG BASE\nFROM ${BASE}\nRUN ! grep db /etc/hosts\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustSucceed(t, testenv.Build{Container: container, Env: env}.Run(t), w.Host+"/inplace:1")
}

// TestInPlaceSignal ends a build at a RUN that does not want to end.
func TestInPlaceSignal(t *testing.T) {
	w := newWorld(t)
	for signal, code := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
		container, env, _ := w.inPlace(t, files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN --mount=type=tmpfs,target=/srv/x trap '' TERM; echo >/made; echo reached-the-$((1+1))nd-line; sleep 300 & sleep 300; sleep 300\n"}, nil)
		before := container.Files(t)
		o := testenv.Build{Container: container, Env: env, SignalAt: "reached-the-2nd-line", Signal: signal}.Run(t)
		mustFail(t, o, code)
		if o.AfterSignal == 0 || o.AfterSignal > 8*time.Second {
			t.Errorf("it ended %v after the signal", o.AfterSignal)
		}
		if diff := cmp.Diff(before, container.Files(t)); diff != "" {
			t.Errorf("the container's root is not what it was:\n%s", diff)
		}
	}
}

// TestInPlaceLeavesNobody: whatever a RUN leaves behind is dead before the next one; mustSucceed looks for survivors.
func TestInPlaceLeavesNobody(t *testing.T) {
	w := newWorld(t)
	container, env, _ := w.inPlace(t, files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN <<END\n" + strings.Join([]string{
		"sleep 301 &",
		"setsid sleep 302 &",
		"(setsid sh -c 'trap \"\" TERM HUP INT; (while :; do echo again >>/written; sleep 0.01; done) & exec sleep 303' &)",
		"sh -c 'kill -STOP $$' &",
		"nohup sleep 304 >/dev/null 2>&1 &",
		"sleep 0.2; exit 0",
	}, "\n") + "\nEND\nRUN a=$(wc -c </written); sleep 0.3; test \"$a\" = \"$(wc -c </written)\" && ! grep -l 'sleep.30[1-4]' /proc/[0-9]*/cmdline\n"}, nil)
	mustSucceed(t, testenv.Build{Container: container, Env: env}.Run(t), w.Host+"/inplace:1")
}

// TestInPlaceThief: a RUN beside the builder does not get at what the builder knows. Without SETPCAP it has as many
// capabilities as the builder, and only that the builder is not dumpable stands against it.
func TestInPlaceThief(t *testing.T) {
	w := newWorld(t)
	const secret = "correct-horse-battery-staple"
	script := strings.Join([]string{
		"for p in /proc/[0-9]*; do",
		"  for f in environ mem maps auxv fd/0 root/kaniko cwd/. exe task/${p#/proc/}/environ; do dd if=$p/$f bs=64k count=1 2>/dev/null; done;",
		"  ls -l $p/fd $p/cwd $p/exe $p/root 2>/dev/null;",
		"  cat $p/cmdline 2>/dev/null;",
		"done >/loot;",
		"env >>/loot; x=" + secret[:13] + ";",
		// Not in any file that we have left in its place either.
		"find / -xdev -type f ! -name loot 2>/dev/null | xargs grep -l \"$x\"-battery >>/loot;",
		"test $(ls /proc/self/fd 2>/dev/null | wc -l) -le 4 || exit 8;",
		"grep -c \"$x\"-battery /loot && exit 9;",
		"test -s /loot && rm /loot",
	}, "\n")
	for name, without := range map[string][]int{"default": nil, "without SETPCAP": {unix.CAP_SETPCAP}} {
		t.Run(name, func(t *testing.T) {
			container, env, _ := w.inPlace(t, files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN <<END\n" + script + "\nEND\n"},
				map[string]string{"KANIKO_SECRET": "id=s,env=THE_SECRET", "THE_SECRET": secret})
			container.Without = without
			mustSucceed(t, testenv.Build{Container: container, Env: env}.Run(t), w.Host+"/inplace:1")
		})
	}
}

// defaultDir is KANIKO_DIR where nobody sets it.
const defaultDir = "/kaniko/work"

// TestInPlaceWithOurFilesInTheImage builds on an image that has files where the builder has its own, and where it puts things aside.
func TestInPlaceWithOurFilesInTheImage(t *testing.T) {
	w := newWorld(t)
	var dockerfile strings.Builder
	dockerfile.WriteString("ARG BASE\nFROM ${BASE}\n")
	for _, p := range []string{"/kaniko/executor", "/kaniko/files", defaultDir + "/build-1/x", "/.kaniko-go/journal", "/.kaniko-go/hidden/0", "/etc/ssl/certs/ca-certificates.crt", "/etc/hosts", "/workspace/a.txt", "/proc/x"} {
		dockerfile.WriteString("COPY a.txt " + p + "\n")
	}
	directory := files{"Dockerfile": dockerfile.String(), "a.txt": "image's\n"}.write(t)
	base := w.Host + "/ours:1"
	epoch := map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}
	mustSucceed(t, testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(directory, base, epoch)}.Run(t), base)
	w.base = base
	context := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN cat /etc/ssl/certs/ca-certificates.crt >/made && echo more >>/etc/ssl/certs/ca-certificates.crt\nRUN rm -r /etc/ssl\n"}
	apart := w.Host + "/apart:1"
	want := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(context.write(t), apart, epoch)}.Run(t)
	mustSucceed(t, want, apart)
	container, env, _ := w.inPlace(t, context, map[string]string{"SOURCE_DATE_EPOCH": "1700000000", "KANIKO_DIR": "/kaniko/work"})
	before := container.Files(t)
	got := testenv.Build{Container: container, Env: env}.Run(t)
	mustSucceed(t, got, w.Host+"/inplace:1")
	if diff := cmp.Diff(want.Results["IMAGE_DIGEST"], got.Results["IMAGE_DIGEST"]); diff != "" {
		t.Errorf("the digest differs (-apart +in place):\n%s\n%s", diff, difference(t, apart, w.Host+"/inplace:1"))
	}
	if diff := cmp.Diff(before, container.Files(t)); diff != "" {
		t.Errorf("the container's root is not what it was:\n%s", diff)
	}
}
