// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestDebian installs real packages with dpkg, compiles a C program in one stage, copies it to another, and lets foreign
// clients run the result.
func TestDebian(t *testing.T) {
	w := newWorld(t)
	testenv.Need(t, "mmdebstrap", "skopeo", "umoci", "runc")
	debian, err := testenv.Debian(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	base := w.Host + "/base/debian:1"
	if err := testenv.Push(context.Background(), debian, base); err != nil {
		t.Fatal(err)
	}
	directory := files{
		"Dockerfile": "ARG DEBIAN\nFROM ${DEBIAN} AS compile\nCOPY debs/ /debs/\nRUN dpkg -i /debs/*.deb\nWORKDIR /src\nCOPY hello.c .\nRUN tcc -o hello hello.c && ./hello\n" +
			"FROM ${DEBIAN}\nRUN useradd --create-home --uid 1500 app && su app -c 'id -un > ~/whoami'\nCOPY --from=compile --chown=app:app /src/hello /usr/local/bin/\nENV NAME=image\nWORKDIR /home/app\nUSER app\nENTRYPOINT [\"hello\"]\nCMD [\"default\"]\n",
		"hello.c": "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\nint main(int argc, char **argv) {\n\tchar d[100];\n\tconst char *n = getenv(\"NAME\");\n\tprintf(\"hello %s from %s as %d in %s\\n\", argc > 1 ? argv[1] : \"-\", n ? n : \"-\", (int)getuid(), getcwd(d, sizeof d));\n\treturn 0;\n}\n",
	}.write(t)
	for _, deb := range testenv.Debs(t, "tcc", "libc6-dev") {
		b, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(directory, "debs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(directory, "debs", filepath.Base(deb)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []testenv.Situation{testenv.DefaultRoot(), testenv.WithSubordinateIDs()} {
		t.Run(s.Name, func(t *testing.T) {
			destination := w.Host + "/compiled:" + s.Name
			o := testenv.Build{Binary: binary, Situation: s, Env: w.env(directory, destination, map[string]string{"KANIKO_BUILD_ARG": "DEBIAN=" + base})}.Run(t)
			mustSucceed(t, o, destination)
			bundle := testenv.UnpackImage(t, destination)
			if got, want := bundle.Run(t), "hello default from image as 1500 in /home/app\n"; got != want {
				t.Errorf("the image runs and prints %q, want %q", got, want)
			}
			if got := bundle.Run(t, "cat", "/home/app/whoami"); got != "app\n" {
				t.Errorf("whoami is %q", got)
			}
		})
	}
}

// TestSignal ends a build in the middle of a RUN.
func TestSignal(t *testing.T) {
	w := newWorld(t)
	directory := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\nRUN trap '' TERM; echo reached-the-$((1+1))nd-line; sleep 300 & sleep 300; sleep 300\n"}.write(t)
	for _, s := range []testenv.Situation{testenv.DefaultRoot(), testenv.WithSubordinateIDs()} {
		for signal, code := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
			t.Run(fmt.Sprintf("%s %v", s.Name, signal), func(t *testing.T) {
				destination := w.Host + "/signal:1"
				before := w.tag(t, destination)
				o := testenv.Build{Binary: binary, Situation: s, Env: w.env(directory, destination, nil), SignalAt: "reached-the-2nd-line", Signal: signal}.Run(t)
				mustFail(t, o, code)
				if o.AfterSignal == 0 || o.AfterSignal > 8*time.Second {
					t.Errorf("it ended %v after the signal", o.AfterSignal)
				}
				if image, err := testenv.Pull(context.Background(), destination); err != nil {
					t.Error(err)
				} else if after, err := image.Digest(); err != nil || after.String() != before {
					t.Errorf("the tag moved to %v (%v)", after, err)
				}
			})
		}
	}
}

// TestDaemon leaves processes behind in a RUN, in the ways that daemons do it; the build goes on and none of them lives.
func TestDaemon(t *testing.T) {
	w := newWorld(t)
	directory := files{"Dockerfile": "ARG BASE\nFROM ${BASE}\n" +
		"RUN (setsid sh -c 'sleep 300 & sleep 300' >/dev/null 2>&1 &) ; sleep 300 & echo started > /started\nRUN ! pgrep sleep && cat /started > /seen\n"}.write(t)
	for _, s := range []testenv.Situation{testenv.PrivilegedRoot(), testenv.DefaultRoot(), testenv.WithSubordinateIDs()} {
		t.Run(s.Name, func(t *testing.T) {
			destination := w.Host + "/daemon:" + s.Name
			o := testenv.Build{Binary: binary, Situation: s, Env: w.env(directory, destination, nil)}.Run(t)
			mustSucceed(t, o, destination)
			if o.Wall > 15*time.Second {
				t.Errorf("it took %v", o.Wall)
			}
		})
	}
}

// TestStagesInParallel has four stages that wait eight seconds each: 32, if one waited for the other.
func TestStagesInParallel(t *testing.T) {
	w := newWorld(t)
	var d strings.Builder
	d.WriteString("ARG BASE\n")
	for _, s := range "abcd" {
		fmt.Fprintf(&d, "FROM ${BASE} AS %c\nRUN sleep 8; echo %c > /%c\n", s, s, s)
	}
	d.WriteString("FROM ${BASE}\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\nCOPY --from=d /d /\n")
	destination := w.Host + "/parallel:1"
	o := testenv.Build{Binary: binary, Situation: testenv.DefaultRoot(), Env: w.env(files{"Dockerfile": d.String()}.write(t), destination, nil)}.Run(t)
	mustSucceed(t, o, destination)
	if o.Wall > 28*time.Second {
		t.Errorf("four stages of eight seconds took %v\n%s", o.Wall, o.Log)
	}
}
