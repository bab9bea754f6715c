// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"net/http"

	"cloud.google.com/go/compute/metadata"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/smithy-go/logging"
)

// The clouds' logins serve their object stores too, from where a build context may come. An *Error says what is wrong with a
// login that is configured; where there is none at all, the object store is asked without.

// AmazonConfig is what AWS's variables and files say, as for ECR. Where there is no login its Credentials
// are aws.AnonymousCredentials.
func AmazonConfig(ctx context.Context) (aws.Config, error) {
	c, err := config.LoadDefaultConfig(ctx, config.WithDefaultRegion(ecrPublicRegion), config.WithLogger(logging.Nop{}))
	if err != nil {
		return c, storeError("s3", awsError("reading AWS's configuration", err, Refused))
	}
	a := &amazon{config: c}
	_, err = a.keys(ctx)
	var none *noLoginError
	switch {
	case errors.As(err, &none):
		c.Credentials = aws.AnonymousCredentials{}
		return c, nil
	case err != nil && aws.IsCredentialsProvider(c.Credentials, &ec2rolecreds.Provider{}):
		c.Credentials = aws.AnonymousCredentials{}
		return c, nil
	case err != nil:
		return c, storeError("s3", err)
	}
	return c, nil
}

// GoogleToken is an access token for Google's services, "" where there is no login.
func GoogleToken(ctx context.Context, o GoogleLogin) (string, error) {
	g := &googleAccount{client: &http.Client{CheckRedirect: noRedirect}, metadata: metadata.NewClient(&http.Client{CheckRedirect: noRedirect})}
	g.read(o)
	t, err := g.login(ctx, "")
	var none *noLoginError
	switch {
	case errors.As(err, &none):
		return "", nil
	case err != nil:
		return "", storeError("gs", err)
	}
	return t.auth.Password, nil
}

// TokenCredential is the login for a service of Azure's whose host is given, nil where none is configured. The managed identity
// of a machine that says nothing of it is not looked for.
func (o AzureLogin) TokenCredential(host string) (azcore.TokenCredential, error) {
	if !o.configured() {
		return nil, nil //nolint:nilnil // as the comment says
	}
	a := newAzure(o, &http.Client{CheckRedirect: noRedirect})
	c, from, err := a.identity(host)
	if err != nil {
		return nil, storeError("azure", &credentialError{name: ACR, reason: from + ": " + shown(err.Error(), o.ClientSecret, o.CertificateKey), class: Refused})
	}
	return explained{c, func(err error) error { return storeError("azure", a.failure(from, err)) }}, nil
}

// explained is a login that says in one line, and with a Class, what it failed of.
type explained struct {
	azcore.TokenCredential
	failure func(error) error
}

// GetToken implements azcore.TokenCredential.
func (c explained) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	t, err := c.TokenCredential.GetToken(ctx, o)
	if err != nil && ctx.Err() == nil {
		err = c.failure(err)
	}
	return t, err
}

// storeError makes an *Error of a login that failed.
func storeError(store string, err error) error {
	e := &Error{Class: Transient, Op: "login", Ref: store, Reason: err.Error(), Err: err}
	var c *credentialError
	if errors.As(err, &c) {
		e.Class = c.class
	}
	return e
}
