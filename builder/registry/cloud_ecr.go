// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	"github.com/google/go-containerregistry/pkg/authn"
)

// ecrHost is the form of the host of a private registry: account, kind of
// endpoint, region, and the domain of one of Amazon's partitions.
var ecrHost = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z]+(?:-[a-z]+)+-[0-9]+)\.` +
	`(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|on\.aws|on\.amazonwebservices\.com\.cn|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

const (
	ecrPublicHost = "public.ecr.aws"
	// The public registry has its login in one region; the login of roles needs any
	// region of the partition where the environment names none.
	ecrPublicRegion = "us-east-1"
)

// amazon logs in to ECR with what the AWS SDK finds.
type amazon struct {
	config aws.Config
	err    error
}

// newECR reads AWS's variables and files. That is left to the SDK, although it
// reads the environment by itself: the chain of keys, profiles, roles, web
// identities and container credentials has some forty variables, all of them
// documented by AWS as the SDK's, and a copy of it would be wrong somewhere.
// It is done now, not at the first login: a RUN in the same root may change files.
func newECR(ctx context.Context, h *hosts) *cloud {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.Proxy = h.proxy
		t.TLSClientConfig.RootCAs = h.roots
	})
	a := &amazon{}
	a.config, a.err = config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(client), config.WithDefaultRegion(ecrPublicRegion), config.WithLogger(logging.Nop{}))
	return &cloud{
		name: ECR, helpers: []string{"ecr-login"},
		owns: func(host string) bool {
			return host == ecrPublicHost || ecrHost.MatchString(host)
		},
		login: a.login,
	}
}

// login gets keys, and with them the password of the registry. Passwords are
// good for twelve hours.
func (a *amazon) login(ctx context.Context, host string) (token, error) {
	ctx, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	if a.err != nil {
		return token{}, awsError("reading AWS's configuration", a.err, Refused)
	}
	keys, err := a.keys(ctx)
	if err != nil {
		return token{}, err
	}
	encoded, expires, err := a.password(ctx, host)
	if err != nil {
		return token{}, awsError("GetAuthorizationToken with "+keys.Source, err, Transient)
	}
	user, password, err := decodeAuth(encoded)
	if err != nil {
		return token{}, &credentialError{name: ECR, reason: "the authorization token has no user and password", class: Transient}
	}
	return token{auth: authn.AuthConfig{Username: user, Password: password}, from: keys.Source, expires: expires}, nil
}

// keys are those of the chain's first way that is configured. The role of the
// machine is the way that nobody has to configure, so it may be absent.
func (a *amazon) keys(ctx context.Context) (aws.Credentials, error) {
	if startsProgram(a.config) {
		return aws.Credentials{}, &credentialError{name: ECR, reason: "the AWS profile has a credential_process: no program is started; use keys or a role", class: Refused}
	}
	ambient := aws.IsCredentialsProvider(a.config.Credentials, &ec2rolecreds.Provider{})
	if ambient {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, probeLimit)
		defer cancel()
	}
	keys, err := a.config.Credentials.Retrieve(ctx)
	switch {
	case err == nil:
		return keys, nil
	case ambient:
		return aws.Credentials{}, &noLoginError{"no keys, profile, web identity or container role is configured, and the machine has no role"}
	default:
		return aws.Credentials{}, awsError("getting AWS credentials", err, Transient)
	}
}

// startsProgram reports whether the chain would run a program of a profile.
func startsProgram(c aws.Config) bool {
	if aws.IsCredentialsProvider(c.Credentials, &credentials.StaticCredentialsProvider{}) || aws.IsCredentialsProvider(c.Credentials, &stscreds.WebIdentityRoleProvider{}) {
		return false // they go before it
	}
	for _, source := range c.ConfigSources {
		if shared, ok := source.(config.SharedConfig); ok {
			for p := &shared; p != nil; p = p.Source {
				if p.CredentialProcess != "" {
					return true
				}
			}
		}
	}
	return false
}

func (a *amazon) password(ctx context.Context, host string) (encoded string, expires time.Time, err error) {
	if host == ecrPublicHost {
		out, err := ecrpublic.NewFromConfig(a.config, func(o *ecrpublic.Options) { o.Region = ecrPublicRegion }).
			GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		switch {
		case err != nil:
			return "", time.Time{}, err
		case out.AuthorizationData == nil:
			return "", time.Time{}, errNoAuthorization
		}
		return aws.ToString(out.AuthorizationData.AuthorizationToken), aws.ToTime(out.AuthorizationData.ExpiresAt), nil
	}
	parts := ecrHost.FindStringSubmatch(host)
	client := ecr.NewFromConfig(a.config, func(o *ecr.Options) {
		o.Region = parts[2]
		if parts[1] != "" {
			o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
		}
	})
	out, err := client.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	switch {
	case err != nil:
		return "", time.Time{}, err
	case len(out.AuthorizationData) == 0:
		return "", time.Time{}, errNoAuthorization
	}
	return aws.ToString(out.AuthorizationData[0].AuthorizationToken), aws.ToTime(out.AuthorizationData[0].ExpiresAt), nil
}

var errNoAuthorization = errors.New("the answer has no authorization data")

// awsError says what failed, without what the request held: AWS repeats the
// session token where a signature does not match.
func awsError(doing string, err error, class Class) error {
	e := &credentialError{name: ECR, class: class}
	var api smithy.APIError
	switch {
	case errors.As(err, &api):
		e.reason = fmt.Sprintf("%s: %s", doing, api.ErrorCode())
		if api.ErrorCode() != "SignatureDoesNotMatch" {
			e.reason += ": " + shown(api.ErrorMessage())
		}
		if api.ErrorFault() != smithy.FaultServer && api.ErrorCode() != "ThrottlingException" {
			e.class = Refused
		}
	default:
		e.reason = doing + ": " + shown(lastCause(err).Error())
		if strings.HasPrefix(lastCause(err).Error(), "unable to read file at ") {
			// The token of a workload; the SDK hides the cause.
			e.class = Refused
		}
	}
	return e
}

// lastCause is the innermost of a chain of errors, or the network's own word,
// without all that was being done.
func lastCause(err error) error {
	var network *net.OpError
	if errors.As(err, &network) {
		return network
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
