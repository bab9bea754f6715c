// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// TestHostile plans Dockerfiles of about the largest size that cost as much as one can make them. What bounds
// them are counts and sizes; the time is only looked at here.
func TestHostile(t *testing.T) {
	fill := func(head, line string) string {
		n := (dockerfile.MaxSize - len(head)) / len(line)
		return head + strings.Repeat(line, min(n, dockerfile.MaxInstructions-20))
	}
	long := func(head, piece, tail string) string {
		return head + strings.Repeat(piece, (60<<10)/len(piece)) + tail
	}
	for name, source := range map[string]string{
		"runs with mounts":       fill("FROM scratch\n", "RUN --mount=type=cache,target=/a --mount=target=/b,src=$X x\n"),
		"many mounts":            long("FROM scratch\nRUN ", "--mount=target=/m$A ", "x\n"),
		"undefined variables":    fill("FROM scratch\n", "ENV A=$B$C$D$E$F$G$H$I$J$K$L$M$N$O$P$Q$R$S$T$U$V$W$X$Y$Z\n"),
		"nested variables":       long("FROM scratch\nENV A=", "${A:-", "\n"),
		"patterns":               fill("FROM scratch\nENV A="+strings.Repeat("a", 20<<10)+"\n", "ENV B=${A//a*a*a*b/c}${A##*a*a*b}\n"),
		"doubling":               fill("FROM scratch\nENV A=0123456789\n", "ENV A=$A$A\n"),
		"stages":                 strings.Repeat("FROM scratch\nRUN --mount=from=s,target=/a x\n", 990),
		"named stages":           "FROM scratch AS a\n" + strings.Repeat("FROM a AS a\n", 990),
		"triggers":               "FROM scratch AS a\n" + strings.Repeat("ONBUILD COPY --from=b x /\n", 900) + strings.Repeat("FROM a\n", 980),
		"arguments":              fill("FROM scratch\n", "ARG A1 A2=$A1 A3=$A2 A4=$A3 A5=$A4\n"),
		"global arguments":       "ARG A=1\n" + strings.Repeat("ARG A=$A$A\n", 9000) + "FROM scratch\n",
		"ports":                  fill("FROM scratch\n", "EXPOSE 1-65535 1-65535/udp\n"),
		"git sources":            fill("FROM scratch\n", "ADD https://a/b.git?ref=c&subdir=d#c:d /\n"),
		"heredocs":               fill("FROM scratch\n", "COPY <<A <<B <<C /d/\n$x\nA\nB\nC\n"),
		"exclusions":             long("FROM scratch\nCOPY ", "--exclude=**/a/** ", "a b\n"),
		"casing":                 fill("FROM scratch\n", "rUN x\n"),
		"continuations":          "FROM scratch\nRUN a " + strings.Repeat("\\\n", dockerfile.MaxSize/2-20) + "b\n",
		"suggestions for stages": strings.Repeat("FROM scratch AS "+strings.Repeat("a", 900)+"\n", 990) + "FROM " + strings.Repeat("b", 900) + ":$X\n",
	} {
		t.Run(name, func(t *testing.T) {
			before := cpu(t)
			file, err := dockerfile.Parse("Dockerfile", []byte(source))
			if err == nil {
				_, err = New(t.Context(), file, request(emptyBase))
			}
			spent := cpu(t) - before
			t.Logf("%v of CPU for %d bytes: %v", spent.Round(time.Millisecond), len(source), err)
			if spent > 4*time.Second {
				t.Errorf("%v of CPU", spent)
			}
		})
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// FuzzHeredocNames wants that no name of a heredoc leads out of the directory its file is made in.
func FuzzHeredocNames(f *testing.F) {
	for _, seed := range []string{"EOF", "/", "a b", "../x", "'..'", "\"a\"/b", ".", "a\\/b", "-", "$X", "3<<x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, source := range []string{
			"FROM scratch\nCOPY <<" + name + " /d/\nx\n" + strings.Trim(name, "'\"-") + "\n",
			"FROM scratch\nRUN <<" + name + "\n#!/x\n" + strings.Trim(name, "'\"-") + "\n",
		} {
			file, err := dockerfile.Parse("Dockerfile", []byte(source))
			if err != nil {
				continue
			}
			plan, err := New(t.Context(), file, request(nil))
			if err != nil {
				continue
			}
			for _, in := range plan.Target.Instructions {
				for _, inline := range inlineOf(in.Op) {
					if path.Base(inline.Name) != inline.Name || inline.Name == ".." || inline.Name == "." || inline.Name == "/" {
						t.Errorf("%q makes the file %q", name, inline.Name)
					}
				}
			}
		}
	})
}

func inlineOf(op Op) []Inline {
	switch op := op.(type) {
	case Run:
		return op.Files
	case Copy:
		return op.Files
	default:
		return nil
	}
}
