// SPDX-License-Identifier: Apache-2.0

package dockerfile

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
)

// GitSource tells whether ADD takes a source for a git repository, and parses it
// in either of the two grammars: with "#REF:DIRECTORY", or with a query of keys. An
// http address is git's only if its path ends in ".git"; "github.com/x/y" is a
// path here, though as a build context it is a repository. The error is that of a
// repository with a query that cannot be meant; ok is true then.
func GitSource(source string) (ref *dfgitutil.GitRef, ok bool, err error) {
	ref, isGit, err := dfgitutil.ParseGitRef(source)
	if !isGit || ref != nil && ref.IndistinguishableFromLocal {
		return nil, false, nil
	}
	return ref, true, err
}

// HTTPSource tells whether ADD fetches a source with HTTP.
func HTTPSource(source string) bool {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		return false
	}
	_, isGit, _ := GitSource(source)
	return !isGit
}
