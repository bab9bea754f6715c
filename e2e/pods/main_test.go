// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

var full = flag.Bool("full", false, "run everything, not a sample")

// programs are what the tests start. They are made once a run.
type programs struct {
	binary string // the program under test
	runc   string // one that knows user namespaces
	watch  string // init of a pod that reports survivors, see testdata/watch
	images images // our own image, unpacked
	dir    string
}

var made programs

func TestMain(m *testing.M) {
	testenv.Main(m, func(ctx context.Context, binary, dir string) error {
		made = programs{dir: dir, binary: binary, watch: filepath.Join(dir, "watch")}
		return compileGo(ctx, made.watch, "./testdata/watch")
	})
}

// compileGo makes a static program of a package of this module.
func compileGo(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// compileC makes a static program of one C file.
func compileC(t *testing.T, out, source string) {
	t.Helper()
	testenv.Need(t, "gcc")
	cmd := exec.CommandContext(t.Context(), "gcc", "-static", "-O1", "-Wall", "-pthread", "-o", out, source)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compiling %s: %v\n%s", source, err, text)
	}
}

// needRunc compiles the pinned runc on first use, and skips the test where that cannot be done.
func needRunc(t *testing.T) {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.Need(t, "busybox", "docker-registry", "unshare", "mount", "gcc", "pkg-config")
	if made.runc != "" {
		return
	}
	cmd := exec.CommandContext(t.Context(), "../../.ci/tool", "runc")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("runc could not be compiled (on Debian as root: e2e/packages.sh): %v\n%s", err, stderr.String())
	}
	made.runc = strings.TrimSpace(string(out))
}

// slots bounds how many pods run at the same time.
func slots() chan struct{} { return make(chan struct{}, max(2, runtime.NumCPU()/2)) }
