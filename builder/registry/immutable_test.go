// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TestKeepImmutable has what registries say of tags that are immutable, and of others that they refuse.
func TestKeepImmutable(t *testing.T) {
	refusal := func(code, message string) string {
		return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message)
	}
	tests := []struct {
		name   string
		status int
		body   string
		kept   bool
	}{
		{"ECR", 400, refusal("TAG_INVALID", "The image tag 'v1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable."), true},
		{"Harbor", 412, refusal("PRECONDITION", "Failed to process request due to 'a:v1' configured as immutable."), true},
		{"Artifact Registry", 400, refusal("MANIFEST_INVALID", "cannot update tag v1. The repository has enabled tag immutability"), true},
		{"Quay", 409, refusal("TAG_IMMUTABLE", "tag v1 is immutable"), true},
		{"Docker Hub", 403, refusal("DENIED", "tag is immutable"), true},
		{"ACR", 405, refusal("REGISTRY_DISALLOWED_OPERATION", "The operation is disallowed on this registry, repository or image. View troubleshooting steps at https://aka.ms/acr/faq"), true},
		{"Artifactory", 403, refusal("DENIED", "Not enough permissions to delete/overwrite artifact 'docker-local/a/v1' (user: 'me' needs DELETE permission)."), true},
		{"Nexus", 400, "Repository does not allow updating assets: docker-hosted", true},
		{"denied", 403, refusal("DENIED", "requested access to the resource is denied"), false},
		{"overload", 503, refusal("UNAVAILABLE", "immutable for now"), false},
	}
	img, old := randomImage(t, 1000, 1), randomImage(t, 900, 1)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			publish(t, f.Host+"/a:v1", old)
			f.add(deny("PUT", "/manifests/v1", tt.status, tt.body))
			res, err := newClient(t, Options{KeepImmutable: true}).Publish(context.Background(), []string{f.Host + "/a:v1"}, img)
			if (err == nil) != tt.kept {
				t.Fatalf("got %v", err)
			}
			f.heal()
			ref, err := name.ParseReference(f.Host + "/a:v1")
			if err != nil {
				t.Fatal(err)
			}
			if d, err := remote.Head(ref); err != nil || d.Digest != digestOf(t, old) {
				t.Errorf("the tag has %v (%v)", d, err)
			}
			if !tt.kept {
				return
			}
			if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "is immutable and still points to "+digestOf(t, old).String()) || res.Digest != digestOf(t, img) {
				t.Errorf("got %s with warnings %q", res.Digest, res.Warnings)
			}
			byDigest, err := name.ParseReference(f.Host + "/a@" + res.Digest.String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := remote.Image(byDigest); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who may push and not read is told of tags that do not move all the same, but only in words that mean nothing else.
func TestKeepImmutableUnread(t *testing.T) {
	for says, kept := range map[string]bool{
		"cannot update tag v1. The repository has enabled tag immutability": true,
		"The operation is disallowed on this registry, repository or image": false,
	} {
		f := newFake(t, answerGet("/manifests/", 403, nil), deny("PUT", "/manifests/v1", 400, says))
		res, err := newClient(t, Options{KeepImmutable: true}).Publish(context.Background(), []string{f.Host + "/a:v1", f.Host + "/a:v2"}, randomImage(t, 10, 1))
		if !kept {
			wantError(t, err, Refused, says)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if warnings := strings.Join(res.Warnings, "\n"); !strings.Contains(warnings, "/a:v1 is immutable and was not moved, and where it points may not be read") {
			t.Errorf("warnings %q", res.Warnings)
		}
		if f.count("PUT", "/manifests/v2") != 1 {
			t.Error("the other tag was not pushed")
		}
	}
}

// Without the option the failure says what the tag has and what to do.
func TestImmutable(t *testing.T) {
	f := newFake(t)
	old, img := randomImage(t, 9, 1), randomImage(t, 10, 1)
	publish(t, f.Host+"/a:v1", old)
	f.add(deny("PUT", "/manifests/v1", 412, said("PRECONDITION", "Failed to process request due to 'a:v1' configured as immutable.")))
	_, err := newClient(t, Options{}).Publish(context.Background(), []string{f.Host + "/a:v1"}, img)
	wantError(t, err, Refused, "412", "it points to "+digestOf(t, old).String(), digestOf(t, img).String(), "KANIKO_PUSH_IGNORE_IMMUTABLE_TAG_ERRORS=true")
}
