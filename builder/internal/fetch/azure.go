// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/md5" //nolint:gosec // what the server keeps, against accidents
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
)

// AzureOptions say how Azure's object store is reached.
type AzureOptions struct {
	// Endpoint is the URL of another server that speaks like it; it may have a path.
	Endpoint string
	// Key is the shared key of the account; SAS a signature for the query. Both may be "": then the URL has its signature, or
	// Credential is used, or nothing.
	Key, SAS   string
	Credential azcore.TokenCredential
}

// azureObject is a blob.
type azureObject struct {
	client *blob.Client
	where  string
	known  bool
	http   *sdkClient
}

// AzureObject is the blob at an https address. The SDK makes the requests.
func AzureObject(address string, o AzureOptions, network Network) (Object, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, &Error{URL: "URL", Reason: "not a valid https URL"}
	}
	a := &azureObject{where: shown(u), known: true, http: newSDKClient(network)}
	fail := func(reason string) (Object, error) { return nil, &Error{URL: a.where, Reason: reason} }
	options := &blob.ClientOptions{ClientOptions: azcore.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: -1}, // a Stream repeats by itself
		Telemetry: policy.TelemetryOptions{Disabled: true},
		Transport: a.http,
	}}
	signed := u.Query().Has("sig")
	switch {
	case !signed && o.Key != "":
		key, err := blob.NewSharedKeyCredential(account(u, o.Endpoint), o.Key)
		if err != nil {
			return fail("the key of the storage account is not base64")
		}
		a.client, err = blob.NewClientWithSharedKeyCredential(u.String(), key, options)
		if err != nil {
			return fail("not the address of a blob")
		}
		return a, nil
	case !signed && o.SAS == "" && o.Credential != nil:
		if u.Scheme != "https" {
			return fail("a token is sent by https only")
		}
		a.client, err = blob.NewClient(u.String(), o.Credential, options)
	default:
		if !signed && o.SAS != "" {
			// Beside what says which version of the blob is meant.
			u.RawQuery, signed = strings.TrimPrefix(u.RawQuery+"&"+strings.TrimPrefix(o.SAS, "?"), "&"), true
		}
		a.known = signed
		a.client, err = blob.NewClientWithNoCredential(u.String(), options)
	}
	if err != nil {
		return fail("not the address of a blob")
	}
	return a, nil
}

// account is the first label of the host or, on a server of one's own, the first element of the path.
func account(u *url.URL, endpoint string) string {
	if endpoint != "" && strings.HasPrefix(u.String(), strings.TrimSuffix(endpoint, "/")+"/") {
		name, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		return name
	}
	name, _, _ := strings.Cut(u.Hostname(), ".")
	return name
}

// Where implements Object.
func (o *azureObject) Where() string { return o.where }

// Close implements Object.
func (o *azureObject) Close() { o.http.close() }

// Get implements Object.
func (o *azureObject) Get(ctx context.Context, off int64, version string) (*Part, error) {
	opts := &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: off}}
	if version != "" {
		tag := azcore.ETag(version)
		opts.AccessConditions = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &tag}}
	}
	out, err := o.client.DownloadStream(ctx, opts)
	if err != nil {
		return nil, o.explain(ctx, err)
	}
	p := &Part{Body: out.Body, Size: -1}
	if out.ETag != nil {
		p.Version = string(*out.ETag)
	}
	if out.ContentLength != nil {
		p.Size = off + *out.ContentLength
	}
	if off == 0 && len(out.ContentMD5) == md5.Size {
		p.Sums = []Sum{{Name: "MD5", Hash: md5.New(), Want: out.ContentMD5}} //nolint:gosec // as above
	}
	return p, nil
}

// explain says what the store said. The SDK's own text has the whole answer in it.
func (o *azureObject) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &Error{URL: o.where, Err: err, Temporary: temporary(err), Reason: escape(last(err).Error())}
	var answer *azcore.ResponseError
	if !errors.As(err, &answer) {
		return e
	}
	e.Status, e.Reason, e.Temporary = answer.StatusCode, escape(answer.ErrorCode), isPassing(answer.StatusCode)
	e.Refused = answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden || answer.ErrorCode == "InvalidAuthenticationInfo"
	if answer.StatusCode == http.StatusPreconditionFailed {
		return changed(o.where)
	}
	if !o.known && answer.StatusCode < http.StatusInternalServerError {
		e.Reason = strings.TrimPrefix(e.Reason+"; no credential was given", "; ")
	}
	return e
}
