// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// New plans the build of a Dockerfile.
func New(_ context.Context, file *dockerfile.File, _ Request) (*Plan, error) {
	return nil, file.Wrap(nil, errors.ErrUnsupported)
}

// String is the golden form.
func (p *Plan) String() string { return "" }
