// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// What a pair of variables is for.
func TestHostOfVariable(t *testing.T) {
	tests := []struct{ name, variable, host string }{
		{"plain", "KANIKO_GHCR_IO", "ghcr.io"},
		{"encoded", "KANIKO_GHCR_2EIO", "ghcr.io"},
		{"encoded dash and port", "KANIKO_MY_2DREGISTRY_2EIO_3A5000", "my-registry.io:5000"},
		{"kaniko's name of a host with a dash is that of the host with dots", "KANIKO_MY_REGISTRY_IO", "my.registry.io"},
		{"Docker Hub", "KANIKO_DOCKER_IO", "index.docker.io"},
		{"every underscore must be an escape", "KANIKO_A_2EFOO_COM", "a.2efoo.com"},
		{"the port of https", "KANIKO_GHCR_2EIO_3A443", "ghcr.io"},
		{"address", "KANIKO__5B_3A_3A1_5D_3A5000", "[::1]:5000"},
		{"one word", "KANIKO_LOCALHOST", "localhost"},
		{"lower case", "KANIKO_ghcr_io", ""},
		{"a byte that is no host's", "KANIKO_A_2FB", "a.2fb"},
		{"nothing", "KANIKO_", ""},
		{"not ours", "GHCR_IO", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if host, _ := hostOfVariable(tt.variable); host != tt.host {
				t.Errorf("%q, want %q", host, tt.host)
			}
		})
	}
}

// Of two pairs for one host the unmistakable one is taken; half a pair is none.
func TestLogins(t *testing.T) {
	c := newClient(t, Options{Logins: []Login{
		{Variable: "KANIKO_H_TEST", User: "plain", Password: "p"},
		{Variable: "KANIKO_H_2ETEST", User: "exact", Password: "p"},
		{Variable: "KANIKO_HALF_TEST", User: "u"},
		{Host: "gitlab.test", Variable: "CI_REGISTRY", User: "ci", Password: "p"},
	}})
	for host, want := range map[string]string{
		"h.test": "exact from KANIKO_H_2ETEST []", "gitlab.test": "ci from CI_REGISTRY []",
		"half.test": " from  [KANIKO_HALF_TEST: no password]", "other.test": " from  []",
	} {
		repo, err := name.NewRepository(host + "/a")
		if err != nil {
			t.Fatal(err)
		}
		cred := resolve(context.Background(), c.sources, repo)
		auth, err := cred.auth.Authorization()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, fmt.Sprintf("%s from %s %v", auth.Username, cred.source, cred.tried)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", host, diff)
		}
	}
}

// Which hosts a cloud may see the credentials of.
func TestCloudHosts(t *testing.T) {
	clouds := newClient(t, Options{}).clouds
	owner := func(host string) string {
		var all []string
		for _, c := range clouds {
			if c.owns(canonicalHost(host)) {
				all = append(all, c.name)
			}
		}
		return strings.Join(all, ",")
	}
	for want, hosts := range map[string][]string{
		ECR: {
			"123456789012.dkr.ecr.us-east-1.amazonaws.com", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
			"123456789012.dkr-ecr.eu-central-1.on.aws", "public.ecr.aws", "PUBLIC.ECR.AWS", "123456789012.DKR.ECR.us-east-1.amazonaws.com:443",
		},
		Google: {"gcr.io", "eu.gcr.io", "us-docker.pkg.dev", "europe-west1-docker.pkg.dev", "docker.pkg.dev"},
		ACR:    {"a.azurecr.io", "my-registry-d4f.azurecr.io", "a.azurecr.cn", "a.azurecr.us"},
		"": {
			"123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.test", "evil.test.dkr.ecr.us-east-1.amazonaws.com", "123456789012.dkr.ecr.us-east-1.amazonaws.com:8443",
			"123456789012.dkr.ecr.evil.amazonaws.com", "dkr.ecr.us-east-1.amazonaws.com", "x123456789012.dkr.ecr.us-east-1.amazonaws.com", "123456789012.dkrXecr.us-east-1.amazonaws.com",
			"123456789012.dkr.ecr.us-east-1.amazonaws.com.", "123456789012.dkr.ecr.us-east-1.xamazonaws.com", "xpublic.ecr.aws", "public.ecr.aws.evil.test", "a.public.ecr.aws", "bucket.s3.us-east-1.amazonaws.com",
			"evilgcr.io", "a.b.gcr.io", "gcr.io.evil.test", "gcr.io:5000", "gcr-io", "gcr.io.", "pkg.dev", "npm.pkg.dev", "evildocker.pkg.dev", "a.us-docker.pkg.dev", "docker.pkg.dev.evil.test",
			"azurecr.io", "evilazurecr.io", "a.b.azurecr.io", "a.azurecr.io.evil.test", "a.azurecr.io:444", "a_b.azurecr.io", "a.azurecr.de", "-.azurecr.io",
			"localhost", "127.0.0.1", "[::1]:443", "169.254.169.254",
		},
	} {
		for _, host := range hosts {
			if got := owner(host); got != want {
				t.Errorf("%s is for %q, want %q", host, got, want)
			}
		}
	}
}

// A million pairs of hosts that are alike, with a credential for the first from
// each of the places: the second gets it only if it is the same host.
func TestCredentialsOfOneHostServeNoOther(t *testing.T) {
	pairs := 1_000_000
	if testing.Short() {
		pairs = 50_000
	}
	const seed = 20261124
	r := rand.New(rand.NewPCG(seed, 1))
	same := 0
	for range pairs {
		a, b := alike(r)
		mine := canonicalHost(a)
		equal := mine == canonicalHost(b)
		variable := variableOfHost(a)
		if host, ok := hostOfVariable(variable); !ok || host != mine {
			t.Fatalf("seed %d: %s of %s is for %s", seed, variable, a, host)
		}
		if got := variable == variableOfHost(b); got != equal {
			t.Fatalf("seed %d: the variables of %s and %s are the same: %v", seed, a, b, got)
		}
		repo := name.Repository{}
		registry, err := name.NewRegistry(b)
		if err != nil {
			continue // no reference can name it
		}
		repo.Registry = registry
		d := dockerConfig{auths: map[string]authn.AuthConfig{canonicalKey(a): {Username: "u", Password: "p"}}}
		sources := append(loginSources([]Login{{Variable: variable, User: "u", Password: "p"}, {Host: a, Variable: "CI_REGISTRY", User: "u", Password: "p"}}), source{find: d.finder(nil)})
		for _, s := range sources {
			if got := s.find(context.Background(), repo).auth != nil; got != equal {
				t.Fatalf("seed %d: the credential of %s from %q serves %s: %v", seed, a, s.name, b, got)
			}
		}
		if equal {
			same++
		}
	}
	if same < pairs/100 || same > pairs/2 {
		t.Errorf("%d of %d pairs are one host: the cases are not what they should be", same, pairs)
	}
}

// alike makes a host and one that differs by little, or only in how it is written.
func alike(r *rand.Rand) (a, b string) {
	words := []string{"ghcr", "io", "registry", "example", "com", "gcr", "docker", "index", "my", "a", "2e", "2d", "azurecr", "ecr", "aws", "evil", "xn--e1a", "localhost", "user", "v2"}
	seps := []string{".", ".", ".", "-", "--", "_", ":5", ".2e", "-2d"}
	var b1 strings.Builder
	for i := range 1 + r.IntN(4) {
		if i > 0 {
			b1.WriteString(seps[r.IntN(len(seps))])
		}
		b1.WriteString(words[r.IntN(len(words))])
	}
	if r.IntN(3) == 0 {
		b1.WriteString([]string{":443", ":5000", ":80", ":8443"}[r.IntN(4)])
	}
	a = b1.String()
	text := []byte(a)
	i := r.IntN(len(text))
	switch r.IntN(8) {
	case 0:
		return a, strings.ToUpper(a)
	case 1:
		return a, a + []string{":443", ".", ":5000", ".com", "x", "-"}[r.IntN(6)]
	case 2:
		return a, []string{"a.", "evil", "x-", "my."}[r.IntN(4)] + a
	case 3:
		return a, strings.NewReplacer(".", "-", "-", ".").Replace(a)
	case 4:
		return a, strings.ReplaceAll(a, ".", "_")
	case 5:
		text[i] = ".-_:ax2"[r.IntN(7)]
		return a, string(text)
	case 6:
		return a, string(slices.Delete(text, i, i+1)) + "x"
	default:
		_, rest, _ := strings.Cut(a, ".")
		return a, rest + "a"
	}
}
