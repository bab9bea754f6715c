// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// bases are the images that Dockerfiles of the corpus begin with, by the build argument that names them.
func bases(ctx context.Context) (map[string]v1.Image, error) {
	busybox, err := testenv.Busybox(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]v1.Image{"BASE": busybox}, nil
}
