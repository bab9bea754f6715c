// SPDX-License-Identifier: Apache-2.0

// Package registry talks to container registries: it resolves a reference to
// one platform's image, reads layers while verifying them, uploads blobs, and
// publishes an image so that a tag moves only after everything under it is
// known to be there.
//
// It is the only package that uses ggcr's remote package and its transports.
// It knows nothing of Dockerfiles, stores or caches: at its edge are
// [v1.Image], [v1.ImageIndex] and [v1.Layer]. One [Client] serves a whole build,
// so that a reference means the same image from the first stage to the last.
package registry
