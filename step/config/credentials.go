// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The places that KANIKO_CREDENTIAL_HELPERS names.
const (
	HelperEnv    = "env"
	HelperGitLab = "gitlab"
	HelperECR    = "ecr"
	HelperGoogle = "google"
	HelperACR    = "acr"
	helperNone   = "none"
)

// Helpers is a set of places where credentials are looked for besides files.
type Helpers []string

// Decode implements envconfig.Decoder.
func (h *Helpers) Decode(value string) error {
	known := []string{HelperEnv, HelperGitLab, HelperECR, HelperGoogle, HelperACR, helperNone}
	*h = Helpers{}
	return eachItem(value, func(item string) error {
		if !slices.Contains(known, item) {
			return errors.New("not a known value; supported: " + strings.Join(known, ", "))
		}
		if item != helperNone {
			*h = append(*h, item)
		}
		return nil
	})
}

// Has reports whether a place is among them; without KANIKO_CREDENTIAL_HELPERS all are.
func (h Helpers) Has(name string) bool { return h == nil || slices.Contains(h, name) }

// Identities holds the variables from which logins to registries are made, under
// the names by which others know them.
type Identities struct {
	GoogleApplicationCredentials string `envconfig:"GOOGLE_APPLICATION_CREDENTIALS" desc:"Key file of a service account, or description of a workload identity, for gcr.io and pkg.dev. Without it the metadata service is asked."`
	AzureTenantID                string `envconfig:"AZURE_TENANT_ID" desc:"For azurecr.io: the directory of the application."`
	AzureClientID                string `envconfig:"AZURE_CLIENT_ID" desc:"For azurecr.io: the application, or the managed identity."`
	AzureClientSecret            string `envconfig:"AZURE_CLIENT_SECRET" secret:"true" desc:"For azurecr.io: the application's secret."`
	AzureCertificatePath         string `envconfig:"AZURE_CLIENT_CERTIFICATE_PATH" desc:"For azurecr.io, without a secret: file with the application's certificate and its key, PEM or PKCS #12."`
	AzureCertificatePassword     string `envconfig:"AZURE_CLIENT_CERTIFICATE_PASSWORD" secret:"true" desc:"For azurecr.io: password of that file."`
	AzureFederatedToken          string `envconfig:"AZURE_FEDERATED_TOKEN" secret:"true" desc:"For azurecr.io: a token that stands for the application."`
	AzureFederatedTokenFile      string `envconfig:"AZURE_FEDERATED_TOKEN_FILE" desc:"For azurecr.io: file with that token, as workload identity mounts it."`
	AzureAuthorityHost           string `envconfig:"AZURE_AUTHORITY_HOST" desc:"For azurecr.io: https URL of the directory; that of the registry's cloud if unset."`
	AzureIdentityEndpoint        string `envconfig:"IDENTITY_ENDPOINT" desc:"For azurecr.io: set where managed identities have an endpoint of their own; IDENTITY_HEADER comes with it."`
	AzureMSIEndpoint             string `envconfig:"MSI_ENDPOINT" desc:"The older name of IDENTITY_ENDPOINT."`
	AWSConfigFile                string `envconfig:"AWS_CONFIG_FILE" desc:"For dkr.ecr hosts of Amazon and public.ecr.aws the AWS SDK reads this and all its other variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_ENDPOINT_URL_ECR, ..."`
	AWSSharedCredentialsFile     string `envconfig:"AWS_SHARED_CREDENTIALS_FILE" desc:"The other of the two files of AWS profiles; $HOME/.aws/config and $HOME/.aws/credentials if unset."`
	CIRegistry                   string `envconfig:"CI_REGISTRY" desc:"Set by GitLab: the registry, HOST or HOST:PORT, for which the next three are."`
	CIRegistryUser               string `envconfig:"CI_REGISTRY_USER" desc:"Set by GitLab: a user for it."`
	CIRegistryPassword           string `envconfig:"CI_REGISTRY_PASSWORD" secret:"true" desc:"Set by GitLab: that user's password."`
	CIJobToken                   string `envconfig:"CI_JOB_TOKEN" secret:"true" desc:"Set by GitLab: serves where there is no CI_REGISTRY_PASSWORD."`
	DependencyProxyServer        string `envconfig:"CI_DEPENDENCY_PROXY_SERVER" desc:"Set by GitLab: the host of its proxy for Docker Hub's images, for which the next two are."`
	DependencyProxyUser          string `envconfig:"CI_DEPENDENCY_PROXY_USER" desc:"Set by GitLab: a user for it."`
	DependencyProxyPassword      string `envconfig:"CI_DEPENDENCY_PROXY_PASSWORD" secret:"true" desc:"Set by GitLab: that user's password."`

	// HostLogins are the pairs of KANIKO_<HOST>_USER and KANIKO_<HOST>_PASSWORD.
	HostLogins []HostLogin `ignored:"true"`
}

// HostLogin is a pair of variables; one of User and Password may be missing.
type HostLogin struct {
	Variable string // what the names of both begin with, KANIKO_GHCR_IO
	User     string
	Password string `json:"-"`
}

// String keeps the password out of whatever prints a configuration.
func (l HostLogin) String() string { return l.Variable }

// GoString does the same for %#v.
func (l HostLogin) GoString() string { return l.Variable }

// resolve collects the pairs, sorted by name.
func (i *Identities) resolve() {
	found := map[string]HostLogin{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, Prefix+"_") {
			continue
		}
		if v, ok := strings.CutSuffix(name, "_USER"); ok && v != Prefix {
			l := found[v]
			l.Variable, l.User = v, value
			found[v] = l
		} else if v, ok := strings.CutSuffix(name, "_PASSWORD"); ok && v != Prefix {
			l := found[v]
			l.Variable, l.Password = v, value
			found[v] = l
		}
	}
	i.HostLogins = nil
	for _, l := range found {
		i.HostLogins = append(i.HostLogins, l)
	}
	slices.SortFunc(i.HostLogins, func(a, b HostLogin) int { return cmp.Compare(a.Variable, b.Variable) })
	if i.CIRegistryPassword == "" && i.CIJobToken != "" {
		i.CIRegistryUser, i.CIRegistryPassword = "gitlab-ci-token", i.CIJobToken
	}
}

// CredentialFiles lists every file that may hold a credential for a registry,
// whether it is there or not.
func (c *Config) CredentialFiles() []string {
	files := []string{
		c.CredentialsFile(), c.GoogleApplicationCredentials, c.AzureCertificatePath, c.AzureFederatedTokenFile, c.AWSConfigFile, c.AWSSharedCredentialsFile,
	}
	if c.Home != "" {
		files = append(files, filepath.Join(c.Home, ".aws", "credentials"), filepath.Join(c.Home, ".aws", "config"),
			filepath.Join(c.Home, ".config", "gcloud", "application_default_credentials.json"))
	}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}
