// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
)

// CheckReport is what build checks found in a Dockerfile.
type CheckReport struct {
	// JSON is BuildKit's lint format, Text the same for people.
	JSON []byte
	Text string
	// Warnings is how many checks fired.
	Warnings int
	// Err is why the Dockerfile cannot be built, nil if it can as far as a plan tells.
	Err error
}

// Check reads the Dockerfile and reports what the build checks say, of all stages or, with a target, of those that it needs.
// Bases are looked up, nothing else is fetched, and nothing is built.
func (b *Builder) Check(ctx context.Context, r Request) (report *CheckReport, err error) {
	r.linting = true
	in, done, err := b.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer done()
	// Only the first platform reports, as with BuildKit: the others would say the same again.
	found, err := plan.Check(ctx, in.file, planRequests(r, in)[0])
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var lint *plan.LintError
	if errors.As(err, &lint) {
		err = nil // a finding like the others
	}
	raw, jsonErr := json.MarshalIndent(found, "", "  ")
	if jsonErr != nil {
		return nil, fmt.Errorf("report of the checks: %w", jsonErr)
	}
	return &CheckReport{JSON: raw, Text: found.String(), Warnings: len(found.Warnings), Err: err}, nil
}
