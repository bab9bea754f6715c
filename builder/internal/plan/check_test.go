// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// all22 raises every build check, each on its own line.
const all22 = `# check=experimental=all
ARG BASE
ARG NAME=Bad
# something else
ARG DESCRIBED=1
FROM busybox:$BASE AS Upper
MAINTAINER me
run x \

  y
FROM busybox as context
FROM busybox AS context
WORKDIR rel
ENV API_KEY=x
ENV legacy value
LABEL a=$MISSING
CMD x
CMD ["y"]
EXPOSE 80/TCP 1.2.3.4:80:80
COPY hidden /
FROM --platform=$TARGETPLATFORM other
FROM --platform=linux/arm64 b$NOPE
FROM --platform=linux/amd64 other AS last
`

func TestAllChecks(t *testing.T) {
	ignore, err := dockerfile.NewMatcher([]string{"hidden"})
	if err != nil {
		t.Fatal(err)
	}
	req := request(emptyBase)
	req.Ignored = ignore.Names
	req.BuildArgs = map[string]string{"BASE": "1", "NOPE": "x"}
	report, err := CheckSource(t.Context(), "Dockerfile", []byte(all22), req)
	got := map[string]bool{}
	for _, w := range report.Warnings {
		got[w.Rule] = true
		if w.Description == "" || len(w.Location) == 0 {
			t.Errorf("%s has no description or place", w.Rule)
		}
	}
	// The twenty-second needs an image of another platform; a golden plan has it.
	for _, rule := range strings.Fields(`StageNameCasing FromAsCasing NoEmptyContinuation ConsistentInstructionCasing
		DuplicateStageName ReservedStageName JSONArgsRecommended MaintainerDeprecated UndefinedArgInFrom WorkdirRelativePath
		UndefinedVar MultipleInstructionsDisallowed LegacyKeyValueFormat RedundantTargetPlatform SecretsUsedInArgOrEnv
		InvalidDefaultArgInFrom FromPlatformFlagConstDisallowed CopyIgnoredFile InvalidDefinitionDescription
		ExposeProtoCasing ExposeInvalidFormat`) {
		if !got[rule] {
			t.Errorf("%s did not fire (%v)", rule, err)
		}
	}
}

func TestReport(t *testing.T) {
	source := "FROM scratch AS a\nMAINTAINER me\nFROM scratch\nCOPY --from=tool x /\n"

	report, err := CheckSource(t.Context(), "Dockerfile", []byte(source), request(nil))
	if err == nil || report.Err == nil {
		t.Fatal("no error for an image that nobody can look up")
	}
	raw, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"warnings":[{"ruleName":"MaintainerDeprecated","description":"The MAINTAINER instruction is deprecated, use a label instead to define an image author",` +
		`"url":"https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/","detail":"Maintainer instruction is deprecated in favor of using label",` +
		`"location":{"ranges":[{"start":{"line":2},"end":{"line":2}}]}}],` +
		`"sources":[{"filename":"Dockerfile","data":"` + base64.StdEncoding.EncodeToString([]byte(source)) + `","language":"Dockerfile"}],` +
		`"buildError":{"message":"tool: no way to look up images was given","location":{"ranges":[{"start":{"line":4},"end":{"line":4}}]}}}`
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Error(diff)
	}
	wantText := `Check complete, 1 warning has been found!

WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/
Maintainer instruction is deprecated in favor of using label
Dockerfile:2
--------------------
   1 |     FROM scratch AS a
   2 | >>> MAINTAINER me
   3 |     FROM scratch
   4 |     COPY --from=tool x /
--------------------
tool: no way to look up images was given
Dockerfile:4
--------------------
   2 |     MAINTAINER me
   3 |     FROM scratch
   4 | >>> COPY --from=tool x /
--------------------
`
	if diff := cmp.Diff(wantText, report.String()); diff != "" {
		t.Error(diff)
	}
	if report, err := CheckSource(t.Context(), "Dockerfile", []byte("FROM scratch\nFROB\n"), request(nil)); err == nil || !strings.Contains(report.String(), "unknown instruction: FROB") {
		t.Errorf("a report of %v: %s", err, report)
	}
	clean, err := CheckSource(t.Context(), "Dockerfile", []byte("FROM scratch\nCOPY a /\n"), request(nil))
	if got, want := clean.String(), "Check complete, no warnings found.\n"; got != want || err != nil {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
}

func TestLintErrorHasItsWarnings(t *testing.T) {
	file := parse(t, "# check=error=true\nFROM scratch\nMAINTAINER me\n")
	_, err := New(t.Context(), file, request(nil))
	var lint *LintError
	var located *dockerfile.Error
	if !errors.As(err, &lint) || len(lint.Warnings) != 1 || !errors.As(err, &located) {
		t.Errorf("got %v", err)
	}
	req := request(nil)
	req.BuildArgs = map[string]string{"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}
	if _, err := New(t.Context(), file, req); err != nil {
		t.Errorf("with everything skipped by a build argument: %v", err)
	}
}
