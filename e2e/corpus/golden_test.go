// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// outcome is what a builder made of a case: an image with an epoch and one without, or an error.
type outcome struct {
	epoch, plain description
	err          string
	// code is kaniko-go's exit code.
	code int
	// debian is the Debian base that it was made on, "" when it does not matter.
	debian string
}

func goldenPath(name string) string { return filepath.Join("testdata", "golden", name+".golden") }

// format writes an outcome down. What is the same without an epoch is not repeated.
func (o outcome) format() []byte {
	archive := &txtar.Archive{}
	add := func(name, text string) {
		archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(text)})
	}
	if o.debian != "" {
		add("debian", o.debian+"\n")
	}
	if o.err != "" {
		add("error", o.err+"\n")
		return txtar.Format(archive)
	}
	add("config", o.epoch.config)
	add("history", o.epoch.history)
	for i, l := range o.epoch.layers {
		add("layer "+o.epoch.diffIDs[i], l)
	}
	for name, pair := range map[string][2]string{"plain config": {o.epoch.config, o.plain.config}, "plain history": {o.epoch.history, o.plain.history}} {
		if pair[0] != pair[1] {
			add(name, pair[1])
		}
	}
	slices.SortFunc(archive.Files[min(len(archive.Files), 2+len(o.epoch.layers)):], func(a, b txtar.File) int { return strings.Compare(a.Name, b.Name) })
	if !slices.Equal(o.epoch.layers, o.plain.layers) {
		for i, l := range o.plain.layers {
			add(fmt.Sprintf("plain layer %d", i), l)
		}
	}
	return txtar.Format(archive)
}

// parseGolden is the reverse of format.
func parseGolden(data []byte) outcome {
	var o outcome
	plain := map[string]string{}
	var plainLayers []string
	for _, f := range txtar.Parse(data).Files {
		text := string(f.Data)
		switch id, isLayer := strings.CutPrefix(f.Name, "layer "); {
		case isLayer:
			o.epoch.layers, o.epoch.diffIDs = append(o.epoch.layers, text), append(o.epoch.diffIDs, id)
		case f.Name == "debian":
			o.debian = strings.TrimSpace(text)
		case f.Name == "error":
			o.err = strings.TrimSpace(text)
		case f.Name == "config":
			o.epoch.config = text
		case f.Name == "history":
			o.epoch.history = text
		case strings.HasPrefix(f.Name, "plain layer"):
			plainLayers = append(plainLayers, text)
		default:
			plain[f.Name] = text
		}
	}
	o.plain = o.epoch
	if text, ok := plain["plain config"]; ok {
		o.plain.config = text
	}
	if text, ok := plain["plain history"]; ok {
		o.plain.history = text
	}
	if plainLayers != nil {
		o.plain.layers = plainLayers
	}
	return o
}

func writeGolden(t *testing.T, name string, o outcome) {
	t.Helper()
	if err := os.WriteFile(goldenPath(name), o.format(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// difference is one aspect in which two outcomes differ.
type difference struct{ aspect, text string }

// compare finds all differences of got from what BuildKit made.
func compare(want, got outcome) []difference {
	var list []difference
	add := func(aspect, format string, args ...any) {
		list = append(list, difference{aspect, fmt.Sprintf(format, args...)})
	}
	told := map[string]bool{}
	tell := func(aspect, where, text string) {
		if !told[aspect+text] { // most of what differs does so with and without an epoch
			told[aspect+text] = true
			add(aspect, "%s:\n%s", where, text)
		}
	}
	switch {
	case want.err != "" && got.err == "":
		add("accepted", "BuildKit refuses: %s", want.err)
		return list
	case want.err == "" && got.err != "":
		add("refused", "exit code %d: %s", got.code, got.err)
		return list
	case want.err != "":
		return nil
	}
	for _, pair := range []struct {
		name      string
		want, got description
	}{{"with epoch", want.epoch, got.epoch}, {"without epoch", want.plain, got.plain}} {
		if d := lineDiff(pair.want.config, pair.got.config); d != "" {
			tell("config", pair.name, d)
		}
		if d := lineDiff(pair.want.history, pair.got.history); d != "" {
			tell("history", pair.name, d)
		}
		if len(pair.want.layers) != len(pair.got.layers) {
			add("layers", "%s: %d layers, BuildKit has %d", pair.name, len(pair.got.layers), len(pair.want.layers))
			continue
		}
		for i := range pair.want.layers {
			w, g := pair.want.layers[i], pair.got.layers[i]
			if d := lineDiff(withoutTimes(w), withoutTimes(g)); d != "" {
				tell("files", fmt.Sprintf("%s, layer %d", pair.name, i), d)
			} else if d := lineDiff(w, g); d != "" {
				tell("times", fmt.Sprintf("%s, layer %d", pair.name, i), d)
			}
		}
	}
	if len(list) == 0 && !slices.Equal(want.epoch.diffIDs, got.epoch.diffIDs) {
		add("diffid", "the same descriptions, but other bytes")
	}
	return list
}

func withoutTimes(layer string) string {
	var b strings.Builder
	for line := range strings.Lines(layer) {
		_, rest, _ := strings.Cut(line, " ")
		b.WriteString(rest)
	}
	return b.String()
}

// lineDiff lists the lines that only one of two texts has; it is empty when they are equal.
func lineDiff(want, got string) string {
	if want == got {
		return ""
	}
	w, g := strings.Split(strings.TrimSuffix(want, "\n"), "\n"), strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	var b strings.Builder
	for _, line := range w {
		if !slices.Contains(g, line) {
			fmt.Fprintf(&b, "    - %s\n", line)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			fmt.Fprintf(&b, "    + %s\n", line)
		}
	}
	if b.Len() == 0 {
		return "    the same lines in another order\n"
	}
	return b.String()
}
