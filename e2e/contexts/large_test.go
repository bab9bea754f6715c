// SPDX-License-Identifier: Apache-2.0

package contexts

import (
	"archive/tar"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// TestLarge builds from an archive of 2 GiB of which 1 MiB is needed: from a web server that makes it as it goes, where the
// Dockerfile comes first and where it comes last.
func TestLarge(t *testing.T) {
	for _, last := range []bool{false, true} {
		name := "the Dockerfile first"
		if last {
			name = "the Dockerfile last"
		}
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("ETag", `"1"`)
				_ = writeLarge(rw, last) // the builder may stop listening
			}))
			defer s.Close()
			dir := testenv.Dir(t)
			cmd := exec.CommandContext(t.Context(), binary)
			var log strings.Builder
			cmd.Stderr, cmd.Dir = &log, dir
			cmd.Env = []string{"PATH=/usr/bin:/bin", "KANIKO_CONTEXT=" + s.URL + "/large.tar", "KANIKO_NO_PUSH=true", "KANIKO_DIR=" + filepath.Join(dir, "work"), "KANIKO_ISOLATION=auto"}
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s", err, log.String())
			}
			usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
			if !ok {
				t.Fatal("no usage")
			}
			t.Logf("%d MiB of memory at most, %d MiB written, %.1f s of processor time; %s", usage.Maxrss>>10, usage.Oublock>>11,
				(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), keptLine(log.String()))
			if usage.Maxrss > 100<<10 {
				t.Errorf("%d KiB of memory", usage.Maxrss)
			}
		})
	}
}

func keptLine(log string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "passed over") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// writeLarge writes 2 GiB in files of 16 MiB, one of 1 MiB, and a Dockerfile that names that.
func writeLarge(w io.Writer, last bool) error {
	tw := tar.NewWriter(w)
	put := func(name string, data []byte) error {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := tw.Write(data)
		return err
	}
	random := rand.NewChaCha8([32]byte{})
	data := make([]byte, 16<<20)
	_, _ = random.Read(data) // never fails
	text := []byte("FROM scratch\nCOPY needed /\n")
	if !last {
		if err := put("Dockerfile", text); err != nil {
			return err
		}
	}
	for i := range 128 {
		if err := put("unneeded/"+string(rune('a'+i%26))+strings.Repeat("x", i/26), data); err != nil {
			return err
		}
		if i == 64 {
			if err := put("needed", data[:1<<20]); err != nil {
				return err
			}
		}
	}
	if last {
		if err := put("Dockerfile", text); err != nil {
			return err
		}
	}
	return tw.Close()
}
