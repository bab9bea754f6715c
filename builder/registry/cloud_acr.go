// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azcloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/google/go-containerregistry/pkg/authn"
)

// AzureLogin is the identity that Azure's registries are shown: of an application
// with a secret, of one with a certificate, of one that a federated token stands
// for, or the managed identity of the machine or pod, in this order.
type AzureLogin struct {
	TenantID, ClientID string
	ClientSecret       string
	CertificateFile    string // with its key, PEM or PKCS #12; read once
	CertificateKey     string // password of the file
	FederatedToken     string
	FederatedTokenFile string // read at each login: it is replaced from time to time
	AuthorityHost      string // https URL; "": that of the registry's cloud
	// Endpoint is whether the environment names a service for managed identities
	// (IDENTITY_ENDPOINT, MSI_ENDPOINT). Otherwise the machine's own is looked for.
	Endpoint bool
}

// acrHost is the form of the hosts of registries in Azure's three clouds.
var acrHost = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*\.azurecr\.(io|cn|us)$`)

// acrScope is what a token must be for to be exchanged; it is one in all clouds.
const acrScope = "https://containerregistry.azure.net/.default"

// azure logs in to the directory, and with its token to a registry.
type azure struct {
	o        AzureLogin
	client   *http.Client // to the directory; the library repeats by itself
	registry *http.Client
	assert   func(context.Context) (string, error)

	certificate []byte // content of the file
	unread      error  // why there is none
}

func newACR(o AzureLogin, client, registry *http.Client) *cloud {
	a := newAzure(o, client)
	a.registry = registry
	return &cloud{
		name: ACR, helpers: []string{"acr-env", "acr", "acr-login"},
		owns:  acrHost.MatchString,
		login: a.login,
	}
}

// newAzure reads the files that the options name.
func newAzure(o AzureLogin, client *http.Client) *azure {
	a := &azure{o: o, client: client}
	a.assert = a.assertion()
	if o.CertificateFile != "" {
		a.certificate, a.unread = os.ReadFile(o.CertificateFile)
	}
	return a
}

// configured reports whether the options say how to log in.
func (o AzureLogin) configured() bool {
	return o.ClientSecret != "" || o.CertificateFile != "" || o.FederatedToken != "" || o.FederatedTokenFile != "" || o.Endpoint
}

// assertion gives the federated token. The last one read serves where the file
// has gone, as it does while a RUN shares our root.
func (a *azure) assertion() func(context.Context) (string, error) {
	last, _ := os.ReadFile(a.o.FederatedTokenFile)
	return func(context.Context) (string, error) {
		if a.o.FederatedToken != "" {
			return a.o.FederatedToken, nil
		}
		data, err := os.ReadFile(a.o.FederatedTokenFile)
		if err != nil && len(last) == 0 {
			return "", err
		}
		if err == nil {
			last = data
		}
		return strings.TrimSpace(string(last)), nil
	}
}

// login gets a refresh token of the registry, which is good for three hours.
func (a *azure) login(ctx context.Context, host string) (token, error) {
	ambient := !a.o.configured()
	limit := loginLimit
	if ambient {
		limit = probeLimit
	}
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	identity, from, err := a.identity(host)
	if err != nil {
		return token{}, &credentialError{name: ACR, reason: from + ": " + shown(err.Error(), a.o.ClientSecret, a.o.CertificateKey), class: Refused}
	}
	access, err := identity.GetToken(short, policy.TokenRequestOptions{Scopes: []string{acrScope}})
	switch {
	case err != nil && ambient:
		return token{}, &noLoginError{"neither AZURE_CLIENT_SECRET nor a certificate nor a federated token is set, and there is no managed identity"}
	case err != nil:
		return token{}, a.failure(from, err)
	}
	long, stop := context.WithTimeout(ctx, loginLimit)
	defer stop()
	refresh, err := a.exchange(long, host, access.Token)
	if err != nil {
		return token{}, err
	}
	return token{auth: authn.AuthConfig{IdentityToken: refresh}, from: from, expires: endOf(refresh)}, nil
}

// identity is the first of the ways that is configured. The library checks
// nothing of it on the network yet.
func (a *azure) identity(host string) (azcore.TokenCredential, string, error) {
	options := azcore.ClientOptions{
		Cloud:     azcloud.Configuration{ActiveDirectoryAuthorityHost: a.authority(host)},
		Transport: a.client,
		Retry:     policy.RetryOptions{MaxRetries: 2, MaxRetryDelay: 5 * time.Second},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
	// The authority is Azure's own or one that the operator named: nobody else has
	// to be asked whether it is one.
	const discover = true
	switch {
	case a.o.ClientSecret != "":
		c, err := azidentity.NewClientSecretCredential(a.o.TenantID, a.o.ClientID, a.o.ClientSecret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: discover})
		return c, "AZURE_CLIENT_SECRET", err
	case a.o.CertificateFile != "":
		c, err := a.certified(options)
		return c, "AZURE_CLIENT_CERTIFICATE_PATH", err
	case a.o.FederatedToken != "" || a.o.FederatedTokenFile != "":
		c, err := azidentity.NewClientAssertionCredential(a.o.TenantID, a.o.ClientID, a.assert,
			&azidentity.ClientAssertionCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: discover})
		return c, "federated token", err
	default:
		// The library reads IDENTITY_ENDPOINT, IDENTITY_HEADER and their kin by itself:
		// which kind of host it is on follows from which of them there are, and it has
		// no options for them.
		o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
		if a.o.ClientID != "" {
			o.ID = azidentity.ClientID(a.o.ClientID)
		}
		c, err := azidentity.NewManagedIdentityCredential(o)
		return c, "managed identity", err
	}
}

// certified is the identity of an application that has a certificate.
func (a *azure) certified(options azcore.ClientOptions) (azcore.TokenCredential, error) {
	if a.unread != nil {
		return nil, a.unread
	}
	certificates, key, err := azidentity.ParseCertificates(a.certificate, []byte(a.o.CertificateKey))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.o.CertificateFile, err)
	}
	return azidentity.NewClientCertificateCredential(a.o.TenantID, a.o.ClientID, certificates, key,
		&azidentity.ClientCertificateCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
}

// authority is where the directory of the registry's cloud is.
func (a *azure) authority(host string) string {
	switch {
	case a.o.AuthorityHost != "":
		return a.o.AuthorityHost
	case strings.HasSuffix(host, ".azurecr.cn"):
		return azcloud.AzureChina.ActiveDirectoryAuthorityHost
	case strings.HasSuffix(host, ".azurecr.us"):
		return azcloud.AzureGovernment.ActiveDirectoryAuthorityHost
	default:
		return azcloud.AzurePublic.ActiveDirectoryAuthorityHost
	}
}

// exchange shows the registry the directory's token.
func (a *azure) exchange(ctx context.Context, host, access string) (string, error) {
	form := url.Values{"grant_type": {"access_token"}, "service": {host}, "access_token": {access}}
	if a.o.TenantID != "" {
		form.Set("tenant", a.o.TenantID)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/oauth2/exchange", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := a.registry.Do(req)
	if err != nil {
		return "", &credentialError{name: ACR, reason: host + " for its token: " + shown(lastCause(err).Error(), access), class: Transient}
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		class := Refused
		if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
			class = Transient
		}
		return "", &credentialError{name: ACR, reason: fmt.Sprintf("%s answered %d when it was shown the directory's token", host, resp.StatusCode), class: class}
	}
	var answer struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxKeyFile)).Decode(&answer); err != nil || answer.Refresh == "" {
		return "", &credentialError{name: ACR, reason: host + " gave no token for the directory's", class: Transient}
	}
	return answer.Refresh, nil
}

// endOf reads the end of a JSON web token, which need not be one; an hour then.
// Nobody trusts it: it only says when to ask again.
func endOf(jwt string) time.Time {
	var claims struct {
		End int64 `json:"exp"`
	}
	if parts := strings.Split(jwt, "."); len(parts) == 3 {
		if data, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil && json.Unmarshal(data, &claims) == nil && claims.End > 0 {
			return time.Unix(claims.End, 0)
		}
	}
	return time.Now().Add(time.Hour)
}

// failure says what the directory said. The library's own text has the whole
// answer in it.
func (a *azure) failure(from string, err error) error {
	e := &credentialError{name: ACR, class: Transient}
	var failed *azidentity.AuthenticationFailedError
	if errors.As(err, &failed) && failed.RawResponse != nil {
		var answer struct {
			Code string `json:"error"`
			Text string `json:"error_description"`
		}
		if body, err := io.ReadAll(io.LimitReader(failed.RawResponse.Body, maxErrorBody)); err == nil {
			_ = json.Unmarshal(body, &answer) // the status says enough
		}
		text, _, _ := strings.Cut(answer.Code+": "+answer.Text, "Trace ID:")
		e.reason = fmt.Sprintf("%d %s", failed.RawResponse.StatusCode, strings.TrimSuffix(text, ": "))
		if failed.RawResponse.StatusCode < 500 && failed.RawResponse.StatusCode != http.StatusTooManyRequests {
			e.class = Refused
		}
	} else {
		e.reason = lastCause(err).Error()
	}
	e.reason = from + ": " + shown(e.reason, a.o.ClientSecret, a.o.FederatedToken)
	return e
}
