// SPDX-License-Identifier: Apache-2.0

package progress

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// collect returns Lines that masks a secret and stands still in time, and what it emits.
func collect(secret string, now *time.Time) (*Lines, *[]string) {
	var out []string
	return &Lines{
		emit: func(s string) { out = append(out, s) },
		mask: func(s string) string {
			if secret == "" {
				return s
			}
			return strings.ReplaceAll(s, secret, "****")
		},
		hold: func() int { return len(secret) },
		now:  func() time.Time { return *now },
	}, &out
}

func write(t *testing.T, w *Lines, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if _, err := w.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLongLineIsCut(t *testing.T) {
	w, lines := collect("", &time.Time{})
	write(t, w, strings.Repeat("x", 3*lineLimit+5))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, l := range *lines {
		got = append(got, len(l))
	}
	if d := cmp.Diff([]int{lineLimit, lineLimit, lineLimit, 5}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestSecretAcrossCuts puts a secret at every place around the limit of a line, and writes in pieces of several sizes.
func TestSecretAcrossCuts(t *testing.T) {
	const secret = "correct horse"
	for before := lineLimit - 2*len(secret); before < lineLimit+2*len(secret); before++ {
		text := strings.Repeat("x", before) + secret + strings.Repeat("y", 100)
		for _, piece := range []int{7, 4096, len(text)} {
			w, lines := collect(secret, &time.Time{})
			for i := 0; i < len(text); i += piece {
				write(t, w, text[i:min(i+piece, len(text))])
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(*lines, ""); all != strings.ReplaceAll(text, secret, "****") {
				t.Fatalf("after %d bytes, in pieces of %d: %q", before, piece, all[before-10:])
			}
		}
	}
}

// TestBomb: what is too much is dropped and counted, the end is kept, and a quiet command may speak again.
func TestBomb(t *testing.T) {
	now := time.Unix(1, 0)
	w, lines := collect("", &now)
	line := strings.Repeat("z", 1023) + "\n"
	write(t, w, strings.Repeat(line, 3<<10), "why it failed\n")
	if got := len(*lines); got != 2<<10 {
		t.Errorf("%d lines, want 2 MiB of them", got)
	}
	now = now.Add(10 * time.Second)
	write(t, w, "again\n")
	want := []string{fmt.Sprintf("[%s of output left out: more than 2.1 MB at once or 204.8 kB a second]", Bytes(1<<20+14)), "again"}
	if d := cmp.Diff(want, (*lines)[2<<10:]); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	*lines = nil
	write(t, w, strings.Repeat(line, 4<<10), "why it failed\n")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := (*lines)[len(*lines)-1]; got != "why it failed" {
		t.Errorf("the last line is %.40q", got)
	}
}
