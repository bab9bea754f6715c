// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// patience is how many seconds a RUN may take whose command ended at once but left something behind: five, and more where
// other work competes for the processors, which these daemons do, too.
func patience(t *testing.T) float64 {
	t.Helper()
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	var load float64
	if _, err := fmt.Sscan(string(b), &load); err != nil {
		t.Fatal(err)
	}
	return 5 * max(1, load/float64(runtime.NumCPU()))
}

// TestDaemons has RUNs that leave processes behind in every way that testdata/daemons.c knows, first each kind alone and then
// all at the same time. The build goes on soon after, and when it ends nothing is left for the container's init: no process,
// no zombie.
func TestDaemons(t *testing.T) {
	w := newWorld(t)
	context := testenv.Dir(t)
	compileC(t, filepath.Join(context, "daemons"), "testdata/daemons.c")
	out, err := exec.CommandContext(t.Context(), filepath.Join(context, "daemons"), "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	kinds := strings.Fields(string(out))
	times := 2
	if *full {
		times = 20
	}
	var text strings.Builder
	text.WriteString("ARG BASE\nFROM ${BASE}\nCOPY daemons /\n")
	for _, k := range kinds {
		fmt.Fprintf(&text, "RUN for i in $(seq %d); do /daemons %s; done; true\n", times, k)
	}
	fmt.Fprintf(&text, "RUN for k in $(/daemons list | grep -v busy); do /daemons $k; done; true\n")
	writeFile(t, filepath.Join(context, "Dockerfile"), text.String())
	for _, k := range []kind{unconfined(), ownUsersUnmasked(), ownUsersAdmin()} {
		t.Run(k.name, func(t *testing.T) {
			p := w.build(k, onDisk, context, w.Host+"/daemons:1", nil)
			p.watched = true
			o := p.run(t, w)
			if o.code != 0 {
				t.Fatalf("exit code %d\n%s", o.code, end(o.log))
			}
			if o.survivors != "" {
				t.Errorf("left for the container's init:\n%s", o.survivors)
			}
			slowest, limit := 0.0, patience(t)
			for step, seconds := range durations(t, o.log) {
				slowest = max(slowest, seconds)
				name := "all of them"
				if i := step - 3; i >= 0 && i < len(kinds) {
					name = kinds[i]
				}
				if seconds > limit {
					t.Errorf("%s: the RUN took %.1fs, more than %.1fs", name, seconds, limit)
				}
			}
			t.Logf("%d kinds of daemon, each %d times: nothing left, the slowest RUN took %.1fs, all together %v", len(kinds), times, slowest, o.wall)
		})
	}
}

// durations are the seconds that each instruction took, by its number.
func durations(t *testing.T, log string) map[int]float64 {
	t.Helper()
	took := map[int]float64{}
	for _, m := range regexp.MustCompile(`(?m)^\[(\d+)/\d+\] done in ([0-9.]+)s`).FindAllStringSubmatch(log, -1) {
		step, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if took[step], err = strconv.ParseFloat(m[2], 64); err != nil {
			t.Fatal(err)
		}
	}
	if len(took) == 0 {
		t.Fatalf("the log gives no times:\n%s", end(log))
	}
	return took
}

// end is the last part of a long log.
func end(log string) string { return log[max(0, len(log)-4000):] }
