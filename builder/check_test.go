// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheck(t *testing.T) {
	tests := []struct {
		name, dockerfile, target string
		want                     string // RULE:LINE of each warning
		fails                    string
	}{
		{name: "nothing", dockerfile: "FROM scratch\nCOPY a /\n"},
		{name: "every stage", dockerfile: "FROM scratch AS one\nENV a b\nFROM scratch as two\nMAINTAINER me\n", want: "LegacyKeyValueFormat:2 FromAsCasing:3 MaintainerDeprecated:4"},
		{name: "one stage", dockerfile: "FROM scratch AS one\nWORKDIR one\nFROM scratch AS two\nWORKDIR two\n", target: "one", want: "WorkdirRelativePath:2"},
		{name: "ignored file", dockerfile: "FROM scratch\nCOPY hidden /\n", want: "CopyIgnoredFile:2"},
		{name: "error=true is no error of the file", dockerfile: "# check=error=true\nFROM scratch\nWORKDIR x\n", want: "WorkdirRelativePath:3"},
		{name: "skipped", dockerfile: "# check=skip=WorkdirRelativePath\nFROM scratch\nWORKDIR x\n"},
		{name: "cannot be built", dockerfile: "FROM scratch\nWORKDIR x\nCOPY --from=1 /a /\n", want: "", fails: "Dockerfile:3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			r := h.request(t, map[string]string{"Dockerfile": tt.dockerfile, "a": "", "hidden": "", ".dockerignore": "hidden\n"})
			r.Target = tt.target
			report, err := h.Check(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			var res struct {
				Warnings []struct {
					RuleName string
					Location struct {
						Ranges []struct{ Start struct{ Line int } }
					}
				}
				BuildError *struct{ Message string }
			}
			if err := json.Unmarshal(report.JSON, &res); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range res.Warnings {
				got = append(got, fmt.Sprintf("%s:%d", w.RuleName, w.Location.Ranges[0].Start.Line))
				if !strings.Contains(report.Text, "WARNING: "+w.RuleName) {
					t.Errorf("%s is not in the text", w.RuleName)
				}
			}
			if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" && tt.fails == "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if tt.fails == "" && report.Err != nil {
				t.Errorf("error %v", report.Err)
			}
			if tt.fails != "" && (report.Err == nil || !strings.Contains(Cause(report.Err), tt.fails) || res.BuildError == nil) {
				t.Errorf("error %v, want %q", report.Err, tt.fails)
			}
			if len(h.requests) != 0 {
				t.Errorf("asked the registry: %q", h.requests)
			}
		})
	}
}
