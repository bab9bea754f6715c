// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func observed() (*zap.Logger, func() string) {
	core, logs := observer.New(zap.InfoLevel)
	return zap.New(core), func() string {
		var out []string
		for _, e := range logs.All() {
			out = append(out, strings.TrimRight(e.Message, " "))
		}
		return strings.Join(out, "\n")
	}
}

func TestLog(t *testing.T) {
	z, text := observed()
	var told []int
	l := New(z, func(done, total int) { told = append(told, done, total) })
	l.Expect(3)
	s := l.Start("build", 2, 3, "RUN make\x1b[31m")
	out := s.Output()
	for _, part := range []string{"one\ntw", "o\r\n", "10%\r99%\r100%\n", "\x1b]0;evil\x07\n", "last"} {
		if _, err := out.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	s.Done("2 changes")
	s.Sized(1500)
	l.Start("build", 0, 3, "ENV A=1").Done("")
	l.Start("", 1, 3, "FROM x").Done("")
	l.Table([]string{"", "build"})
	want := `[build 2/3] RUN make?[31m
[build 2/3] | one
[build 2/3] | two
[build 2/3] | 100%
[build 2/3] | ?]0;evil?
[build 2/3] | last
[build 2/3] done in 0.0s, 2 changes
[build] ENV A=1
[1/3] FROM x
[1/3] done in 0.0s
               time  cached       layer  instruction
1/3            0.0s      no           -  FROM x
build 2/3      0.0s      no      1.5 kB  RUN make?[31m`
	if d := cmp.Diff(want, text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]int{1, 3, 2, 3}, told); d != "" {
		t.Errorf("progress (-want +got):\n%s", d)
	}
}

func TestTransfers(t *testing.T) {
	z, text := observed()
	tr := NewTransfers(New(z, nil))
	const digest = "sha256:0123456789abcdef0123456789abcdef"
	tr.Report("pull", digest, "host/repo", 10, 100, false)
	tr.Report("pull", digest, "host/repo", 100, 100, true)
	tr.Report("mount", digest, "host/repo", 0, 2_500_000, true)
	want := `pull sha256:0123456789ab: 100 B from host/repo in 0.0s
push sha256:0123456789ab: 2.5 MB mounted into host/repo`
	if d := cmp.Diff(want, text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0.0s", 1550 * time.Millisecond: "1.6s", 65 * time.Second: "1m05s", time.Hour + time.Second: "60m01s"} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 12_345_678: "12.3 MB", 3_210_000_000: "3.21 GB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
}
