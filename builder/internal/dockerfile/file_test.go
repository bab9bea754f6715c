// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func TestParseErrors(t *testing.T) {
	long := strings.Repeat("RUN true\n", MaxInstructions)
	for _, tc := range []struct{ name, source, want string }{
		{"empty", "", "Dockerfile: the Dockerfile cannot be empty"},
		{"only comments", "# a\n\n# b\n", "Dockerfile:3: file with no instructions"},
		{"no stage", "ARG A=1\n", "Dockerfile: dockerfile contains no stages to build"},
		{"instruction before FROM", "ARG A\nRUN x\nFROM y\n", "Dockerfile:2: no build stage in current context"},
		{"unknown instruction", "FROM x\nENVI a=b\n", "Dockerfile:2: unknown instruction: ENVI (did you mean ENV?)"},
		{"unknown flag", "FROM x\nCOPY --form=a b c\n", "Dockerfile:2: unknown flag: --form (did you mean from?)"},
		{"repeated flag", "FROM x\nCOPY --chown=1 --chown=2 b c\n", "Dockerfile:2: duplicate flag specified: --chown"},
		{"no destination", "FROM x\nRUN y\nCOPY a\n", "Dockerfile:3: COPY requires at least two arguments, but only one was provided. Destination could not be determined"},
		{"several lines", "FROM x\nENV a=b \\\n  =c\n", "Dockerfile:2-3: ENV names can not be blank"},
		{"open heredoc", "FROM x\nRUN <<EOF\na\n", "Dockerfile:2-3: unterminated heredoc"},
		{"heredoc destination", "FROM x\nCOPY a <<EOF\nEOF\n", "Dockerfile:2-3: COPY cannot accept a heredoc as a destination"},
		{"numbers in JSON", "FROM x\nCMD [1]\n", "Dockerfile:2: when using JSON array syntax, arrays must be comprised of strings only"},
		{"stage name", "FROM x AS 1st\n", `Dockerfile:1: invalid name for build stage: "1st", name can't start with a number or contain symbols`},
		{"escape", "# escape=x\nFROM y\n", "Dockerfile: invalid escape token 'x' does not match ` or \\"},
		{"directive twice", "# escape=`\n# escape=`\nFROM y\n", "Dockerfile:1: only one escape parser directive can be used"},
		{"check option", "# check=skpi=all\nFROM y\n", `Dockerfile:1: failed to parse check options: invalid check option "skpi"`},
		{"foreign syntax", "# syntax=example.com/x:1\nFROM y\n", `Dockerfile:1: syntax "example.com/x:1" is not supported: the Dockerfile language is built in and other frontends are not run; use docker/dockerfile or remove the line`},
		{"foreign syntax in JSON", `{"syntax": "example.com/x"}`, `Dockerfile: syntax "example.com/x" is not supported: the Dockerfile language is built in and other frontends are not run; use docker/dockerfile or remove the line`},
		{"too many bytes", "FROM x\n" + strings.Repeat("#", MaxSize), "Dockerfile: the Dockerfile has 1048583 bytes, the limit is 1048576"},
		{"long line", "FROM x\nRUN " + strings.Repeat("x", 70_000), "Dockerfile:1: dockerfile line greater than max allowed size of 65535"},
		{"too many instructions", "FROM x\n" + long, "Dockerfile:10001: the Dockerfile has 10001 instructions, the limit is 10000"},
		{"too many stages", strings.Repeat("FROM x\n", MaxStages+1), "Dockerfile:1001: the Dockerfile has 1001 stages, the limit is 1000"},
		{"binary", "FROM x\x00\n", "Dockerfile: the Dockerfile contains a NUL byte: it is not a text file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("Dockerfile", []byte(tc.source))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Error(diff)
			}
			var located *Error
			if !errors.As(err, &located) {
				t.Errorf("%T is no *Error", err)
			}
		})
	}
}

func TestCheckSyntax(t *testing.T) {
	for syntax, ok := range map[string]bool{
		"docker/dockerfile:1":                   true,
		"docker.io/docker/dockerfile:1.7-labs":  true,
		"docker/dockerfile-upstream:master":     true,
		"docker/dockerfile:1@sha256:0123":       true,
		"dockerfile.v0":                         true,
		"example.com/docker/dockerfile":         false,
		"docker/other":                          false,
		"ghcr.io/depot/dockerfile":              false,
		"docker.io.example.com/docker/dockerf":  false,
		"docker.io/someone/docker/dockerfile:1": false,
	} {
		if err := CheckSyntax(syntax); (err == nil) != ok {
			t.Errorf("CheckSyntax(%q) = %v", syntax, err)
		}
	}
}

func TestParseKeeps(t *testing.T) {
	source := "\ufeff# syntax=docker/dockerfile:1\n# escape=`\n# check=skip=StageNameCasing\nARG a=1\nFROM x as One\nMAINTAINER me\nRUN a `\n\n  b\n"
	f, err := Parse("sub/My.Dockerfile", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	if f.EscapeToken != '`' || f.Name != "sub/My.Dockerfile" || len(f.Stages) != 1 || len(f.MetaArgs) != 1 {
		t.Errorf("parsed as %+v", f)
	}
	var rules []string
	for _, w := range f.Warnings {
		rules = append(rules, w.Rule)
	}
	if diff := cmp.Diff([]string{"NoEmptyContinuation", "FromAsCasing", "MaintainerDeprecated"}, rules); diff != "" {
		t.Error(diff)
	}
}

func TestWrap(t *testing.T) {
	f := &File{Name: "Dockerfile", Source: []byte("FROM a\nRUN b \\\n\n  c\x1b[31m\r\nCOPY d e\n# f\n# g\n# h\n")}
	cause := errors.New("first\nsecond")
	err := f.Wrap([]parser.Range{at(2), at(3), at(4)}, cause)
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if got, want := err.Error(), `Dockerfile:2-4: first\nsecond`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var located *Error
	if !errors.As(err, &located) {
		t.Fatal("not an *Error")
	}
	want := "Dockerfile:2\n--------------------\n" +
		"   1 |     FROM a\n   2 | >>> RUN b \\\n   3 | >>>\n   4 | >>>   c\ufffd[31m\n   5 |     COPY d e\n   6 |     # f\n" +
		"--------------------\n"
	if diff := cmp.Diff(want, located.Excerpt()); diff != "" {
		t.Error(diff)
	}
	if again := f.Wrap([]parser.Range{at(7)}, err); again.Error() != err.Error() {
		t.Errorf("the outer location won: %v", again)
	}
	if f.Wrap(nil, nil) != nil {
		t.Error("an error out of nothing")
	}
	errors.As(f.Wrap(nil, cause), &located)
	if got := located.Excerpt(); got != "" {
		t.Errorf("an excerpt without a place: %q", got)
	}
	errors.As(f.Wrap([]parser.Range{at(99)}, cause), &located)
	if got := located.Excerpt(); got != "" {
		t.Errorf("an excerpt beyond the end: %q", got)
	}
}

func TestExcerptIsShort(t *testing.T) {
	f := &File{Name: "Dockerfile", Source: []byte(strings.Repeat(strings.Repeat("é", 1000)+"\n", 500))}
	var place []parser.Range
	for line := 10; line < 400; line++ {
		place = append(place, at(line))
	}
	var located *Error
	errors.As(f.Wrap(place, errors.New("x")), &located)
	excerpt := located.Excerpt()
	if n := strings.Count(excerpt, "\n"); n != excerptLines+4 {
		t.Errorf("%d lines", n)
	}
	if len(excerpt) > 40*(excerptWidth+30) {
		t.Errorf("%d bytes", len(excerpt))
	}
}

func at(line int) parser.Range {
	return parser.Range{Start: parser.Position{Line: line}, End: parser.Position{Line: line}}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"FROM scratch\nCOPY a /b\n",
		"# syntax=docker/dockerfile:1\n# escape=`\nARG A=${B:-c}\nFROM --platform=$A x AS y\nRUN <<EOF\n#!/bin/sh\nEOF\n",
		"FROM x\nCOPY --chown=1:2 --from=y <<A <<-\"B\" /d/\na\nA\n\tb\n\tB\n",
		"FROM x\nONBUILD COPY <<E /f\n$x\nE\nHEALTHCHECK --interval=1s CMD [\"a\"]\n",
		"FROM x\nENV a=${v//x/${w%%y*}} b='$c' d\\ e=f\nEXPOSE 1-3/udp $p\nSHELL [\"a\"]\n",
		" # escape=`\n #\n\ufeffFROM x",
		"{\"syntax\":\"x\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		file, err := Parse("Dockerfile", source)
		if err == nil {
			if len(file.Stages) == 0 {
				t.Error("no stage and no error")
			}
			return
		}
		var located *Error
		if !errors.As(err, &located) {
			t.Errorf("%T: %v", err, err)
		}
		if text := err.Error() + located.Excerpt(); strings.ContainsAny(err.Error(), "\n") || text == "" {
			t.Errorf("message %q", text)
		}
	})
}
