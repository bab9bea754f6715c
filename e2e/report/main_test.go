// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	const skip = `{"Action":"run","Package":"p","Test":"TestS"}
{"Action":"output","Package":"p","Test":"TestS","Output":"=== RUN   TestS\n"}
{"Action":"output","Package":"p","Test":"TestS","Output":"    a_test.go:7: not installed: runc\n"}
{"Action":"output","Package":"p","Test":"TestS","Output":"--- SKIP: TestS (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestS","Elapsed":0}
`
	const pass = `{"Action":"pass","Package":"p","Test":"TestP","Elapsed":0.5}
{"Action":"pass","Package":"p","Elapsed":0.6}
`
	const fail = `{"Action":"output","Package":"p","Test":"TestF","Output":"    a_test.go:9: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestF","Elapsed":0.1}
{"Action":"fail","Package":"p","Elapsed":0.2}
`
	for _, tc := range []struct {
		name, input, want string
		noSkip, ok        bool
	}{
		{
			name: "passed and skipped", input: skip + pass, ok: true,
			want: "skipped: p TestS: not installed: runc\npass     0.6s p\nslow:    0.5s p TestP\nslow:    0.0s p TestS\n1 passed, 0 failed, 1 skipped\n",
		},
		{
			name: "a skip that may not be", input: skip + pass, noSkip: true,
			want: "skipped: p TestS: not installed: runc\npass     0.6s p\nslow:    0.5s p TestP\nslow:    0.0s p TestS\n1 passed, 0 failed, 1 skipped\n",
		},
		{
			name: "failed", input: fail,
			want: "FAILED: p TestF\n    a_test.go:9: got 1, want 2\nFAILED: p \nfail     0.2s p\nslow:    0.1s p TestF\n0 passed, 1 failed, 0 skipped\n",
		},
		{
			name: "does not compile", input: "{\"Action\":\"build-output\",\"ImportPath\":\"p\",\"Output\":\"a.go:1: syntax error\\n\"}\n{\"Action\":\"fail\",\"Package\":\"p\",\"Elapsed\":0}\n",
			want: "a.go:1: syntax error\nFAILED: p \nfail     0.0s p\n0 passed, 1 failed, 0 skipped\n",
		},
		{name: "nothing ran", input: "", want: "0 passed, 0 failed, 0 skipped\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got strings.Builder
			ok, err := report(strings.NewReader(tc.input), &got, tc.noSkip)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got.String()); diff != "" || ok != tc.ok {
				t.Errorf("ok %v, want %v (-want +got):\n%s", ok, tc.ok, diff)
			}
		})
	}
}
