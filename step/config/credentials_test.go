// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostLogins(t *testing.T) {
	i := Identities{}
	for k, v := range map[string]string{
		"KANIKO_GHCR_IO_USER": "u", "KANIKO_GHCR_IO_PASSWORD": "secret", "KANIKO_HALF_TEST_PASSWORD": "secret", "KANIKO_USER": "x", "OTHER_USER": "x",
	} {
		t.Setenv(k, v)
	}
	i.resolve()
	want := []HostLogin{
		{Variable: "KANIKO_GHCR_IO", User: "u", Password: "secret"},
		{Variable: "KANIKO_HALF_TEST", Password: "secret"},
	}
	if diff := cmp.Diff(want, i.HostLogins); diff != "" {
		t.Errorf("logins (-want +got):\n%s", diff)
	}
	if shown := fmt.Sprintf("%v %+v %#v", i.HostLogins, i.HostLogins, i.HostLogins); strings.Contains(shown, "secret") {
		t.Errorf("%s tells a password", shown)
	}
}

func TestGitLabJob(t *testing.T) {
	for _, tt := range []struct {
		name       string
		have, want Identities
	}{
		{"user and password", Identities{CIRegistryUser: "u", CIRegistryPassword: "p", CIJobToken: "t"}, Identities{CIRegistryUser: "u", CIRegistryPassword: "p", CIJobToken: "t"}},
		{"job", Identities{CIRegistryUser: "u", CIJobToken: "t"}, Identities{CIRegistryUser: "gitlab-ci-token", CIRegistryPassword: "t", CIJobToken: "t"}},
		{"none", Identities{}, Identities{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.have
			got.resolve()
			got.HostLogins = nil
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHelpers(t *testing.T) {
	var unset Helpers
	if !unset.Has(HelperECR) {
		t.Error("without the variable not everything is asked")
	}
	for value, want := range map[string]string{"none": "", "env\necr": "env ecr", `["google"]`: "google", "ecr\nnone": "ecr"} {
		var h Helpers
		if err := h.Decode(value); err != nil {
			t.Errorf("%q: %v", value, err)
		}
		if got := strings.Join(h, " "); got != want || h.Has(HelperACR) {
			t.Errorf("%q is %q, want %q", value, got, want)
		}
	}
	var h Helpers
	if err := h.Decode("ecr\nazure"); err == nil || !strings.Contains(err.Error(), `"azure": not a known value; supported: env, gitlab, ecr, google, acr, none`) {
		t.Errorf("error %v", err)
	}
}
