// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/compute/metadata"
	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// GoogleLogin says where the credentials for Google's registries are.
type GoogleLogin struct {
	// KeyFile is what GOOGLE_APPLICATION_CREDENTIALS names: the key of a service
	// account, or the description of a workload identity.
	KeyFile string
	// Home is where gcloud keeps its application default credentials, read when
	// there is no KeyFile. Without either the metadata service is asked.
	Home string
}

// googleHost is the form of the hosts of Container Registry and Artifact Registry.
var googleHost = regexp.MustCompile(`^(?:[a-z0-9-]+\.)?gcr\.io$|^(?:[a-z0-9-]+-)?docker\.pkg\.dev$`)

const googleScope = "https://www.googleapis.com/auth/cloud-platform"

// maxKeyFile is far more than any key file has.
const maxKeyFile = 1 << 20

// googleAccount logs in with a key file, or as the machine or pod.
type googleAccount struct {
	client   *http.Client
	metadata *metadata.Client

	from    string // the key file; "" to ask the metadata service
	key     []byte
	kind    google.CredentialsType
	secrets []string
	err     error
}

// newGoogle reads the key file now: a RUN in the same root may change files.
func newGoogle(o GoogleLogin, client, once *http.Client) *cloud {
	// The library takes the service's address from GCE_METADATA_HOST by itself, as
	// every program of Google's does; it has no option for it.
	g := &googleAccount{client: client, metadata: metadata.NewClient(once)}
	g.read(o)
	return &cloud{
		name: Google, helpers: []string{"gcr", "gcloud"},
		owns:  googleHost.MatchString,
		login: g.login,
	}
}

func (g *googleAccount) read(o GoogleLogin) {
	g.from = o.KeyFile
	if o.KeyFile == "" && o.Home != "" {
		g.from = filepath.Join(o.Home, ".config", "gcloud", "application_default_credentials.json")
	}
	if g.from == "" {
		return
	}
	g.key, g.err = os.ReadFile(g.from)
	switch {
	case o.KeyFile == "" && errors.Is(g.err, fs.ErrNotExist):
		g.from, g.err = "", nil
	case g.err != nil:
		g.err = lastCause(g.err)
	case len(g.key) > maxKeyFile:
		g.err = errors.New("too large for a key file")
	default:
		g.err = g.inspect()
	}
}

// inspect refuses what no build should do: start a program for a credential.
func (g *googleAccount) inspect() error {
	var key struct {
		Type         string `json:"type"`
		PrivateKey   string `json:"private_key"`
		RefreshToken string `json:"refresh_token"`
		ClientSecret string `json:"client_secret"`
		Source       struct {
			Executable json.RawMessage `json:"executable"`
		} `json:"credential_source"`
	}
	if err := json.Unmarshal(g.key, &key); err != nil {
		return jsonProblem(err)
	}
	g.kind = google.CredentialsType(key.Type)
	known := []google.CredentialsType{
		google.ServiceAccount, google.AuthorizedUser, google.ExternalAccount, google.ExternalAccountAuthorizedUser, google.ImpersonatedServiceAccount,
	}
	g.secrets = []string{key.PrivateKey, key.RefreshToken, key.ClientSecret}
	switch {
	case !slices.Contains(known, g.kind):
		return errors.New("its type is none of service_account, authorized_user, external_account, external_account_authorized_user and impersonated_service_account")
	case key.Source.Executable != nil:
		return errors.New("its credential_source is a program: none is started; use a file or a URL")
	}
	return nil
}

// login gets an access token. Those are good for an hour or less.
func (g *googleAccount) login(ctx context.Context, _ string) (token, error) {
	if g.from == "" {
		return g.ask(ctx)
	}
	if g.err != nil {
		return token{}, &credentialError{name: Google, reason: g.from + ": " + shown(g.err.Error()), class: Refused}
	}
	ctx, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	ctx = context.WithValue(ctx, oauth2.HTTPClient, g.client)
	// The library keeps the context of its requests, so each login has its own.
	found, err := google.CredentialsFromJSONWithType(ctx, g.key, g.kind, googleScope)
	if err != nil {
		return token{}, &credentialError{name: Google, reason: g.from + ": not a usable key file", class: Refused}
	}
	t, err := found.TokenSource.Token()
	if err != nil {
		return token{}, g.failure(err)
	}
	return googleToken(t.AccessToken, t.Expiry, g.from), nil
}

// ask gets a token from the metadata service of a machine or, with workload
// identity, of a cluster.
func (g *googleAccount) ask(ctx context.Context) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	text, err := g.metadata.GetWithContext(ctx, "instance/service-accounts/default/token?scopes="+googleScope)
	if err != nil {
		return token{}, &noLoginError{"GOOGLE_APPLICATION_CREDENTIALS is not set, and there is no metadata service with an account"}
	}
	var answer struct {
		Token   string `json:"access_token"`
		Seconds int64  `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Token == "" {
		return token{}, &credentialError{name: Google, reason: "the metadata service's answer is not a token", class: Transient}
	}
	return googleToken(answer.Token, time.Now().Add(time.Duration(answer.Seconds)*time.Second), "metadata service"), nil
}

func googleToken(access string, expires time.Time, from string) token {
	return token{auth: authn.AuthConfig{Username: "oauth2accesstoken", Password: access}, from: from, expires: expires}
}

var statusCode = regexp.MustCompile(`status code (\d+)`)

// failure says what failed, without what a server sent back beyond that.
func (g *googleAccount) failure(err error) error {
	e := &credentialError{name: Google, class: Transient}
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.Response != nil:
		var said struct {
			Code string `json:"error"`
			Text string `json:"error_description"`
		}
		_ = json.Unmarshal(refused.Body, &said) // the status says enough
		e.reason = fmt.Sprintf("the token server answered %d %s", refused.Response.StatusCode, strings.TrimSuffix(said.Code+": "+said.Text, ": "))
		if refused.Response.StatusCode < 500 && refused.Response.StatusCode != http.StatusTooManyRequests {
			e.class = Refused
		}
	case statusCode.MatchString(err.Error()):
		e.reason = "the token server answered " + statusCode.FindStringSubmatch(err.Error())[1]
		e.class = Refused
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		e.reason, e.class = "the subject token: "+lastCause(err).Error(), Refused
	default:
		e.reason = "no token: " + lastCause(err).Error()
	}
	e.reason = g.from + ": " + shown(e.reason, g.secrets...)
	return e
}
