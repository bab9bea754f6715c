// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// keep leaves a tag that the registry refuses to move as it is, where that is wanted and the reason is that tags have one digest for
// ever. now is where the tag points, zero if that may not be read.
func (m *move) keep(e *statusError, now v1.Hash) bool {
	if !m.p.client.o.KeepImmutable || !immutable(e, now != (v1.Hash{})) {
		return false
	}
	points := "still points to " + now.String()
	if now == (v1.Hash{}) {
		points = "was not moved, and where it points may not be read"
	}
	m.kept = true
	m.p.warn(fmt.Sprintf("%s is immutable and %s; %s is in its repository by digest", m.tag.Name(), points, m.p.image.root().digest))
	return true
}

// immutable tells whether a registry refuses a tag because it has one digest for ever. There is no code for it: ECR, Harbor, Artifact
// Registry, Quay, Docker Hub, GitLab, ACR, Artifactory and Nexus each have words of their own. Some of the words may mean something else
// where the tag is not known to exist.
func immutable(e *statusError, exists bool) bool {
	if e.status < 400 || e.status >= 500 || e.status == http.StatusUnauthorized || isPassing(e.status) {
		return false
	}
	said := strings.ToLower(e.reason + " " + strings.Join(e.codes, " "))
	contains := func(words string) bool { return strings.Contains(said, words) }
	return slices.ContainsFunc([]string{"immutab", "tag_already_exists", "imagetagalreadyexists", "cannot be overwritten"}, contains) ||
		exists && slices.ContainsFunc([]string{
			"already exists", "not allowed to overwrite", "cannot overwrite", "delete/overwrite", "writeenabled",
			"operation is disallowed on this registry, repository or image", "does not allow updating", "redeploy is not allowed",
		}, contains)
}
