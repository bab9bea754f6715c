// SPDX-License-Identifier: Apache-2.0

// Package copyoracle compares builder/internal/copy with the code that BuildKit copies with, tonistiigi/fsutil/copy, on random
// trees and random flags of COPY. It is a module of its own, so that the product does not depend on fsutil, and its path lies below
// builder, so that it may import what is internal there. It compares the trees that come out, not the layers made of them.
package copyoracle
