// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/md5"  //nolint:gosec // what the server keeps, against accidents
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// S3Options say how Amazon's object store, or one that speaks like it, is reached.
type S3Options struct {
	// Endpoint is the URL of the store, "" for Amazon's, or what the SDK's own variables say.
	Endpoint string
	// PathStyle puts the bucket into the path instead of the host.
	PathStyle bool
}

// s3Object is an object of a bucket.
type s3Object struct {
	client      *s3.Client
	bucket, key string
	http        *sdkClient
	// nobody says that there is no login.
	nobody bool
}

// S3Object is an object of a bucket, read with what c has for a login. The SDK makes the requests.
func S3Object(c aws.Config, bucket, key string, o S3Options, network Network) Object {
	if own, ok := c.HTTPClient.(*awshttp.BuildableClient); ok && network.RootCAs == nil {
		if conf := own.GetTransport().TLSClientConfig; conf != nil {
			network.RootCAs = conf.RootCAs // those of AWS_CA_BUNDLE
		}
	}
	sdk := newSDKClient(network)
	client := s3.NewFromConfig(c, func(opts *s3.Options) {
		opts.HTTPClient = sdk
		if o.Endpoint != "" {
			opts.BaseEndpoint = aws.String(o.Endpoint)
		}
		opts.UsePathStyle = o.PathStyle
		opts.DisableLogOutputChecksumValidationSkipped = true
		// A Stream repeats by itself.
		opts.RetryMaxAttempts = 1
	})
	nobody := aws.IsCredentialsProvider(c.Credentials, aws.AnonymousCredentials{})
	return &s3Object{client: client, bucket: bucket, key: key, http: sdk, nobody: nobody}
}

// Where implements Object.
func (o *s3Object) Where() string { return escape("s3://" + o.bucket + "/" + o.key) }

// Close implements Object.
func (o *s3Object) Close() { o.http.close() }

// Get implements Object.
func (o *s3Object) Get(ctx context.Context, off int64, version string) (*Part, error) {
	in := &s3.GetObjectInput{Bucket: &o.bucket, Key: &o.key}
	if version != "" {
		in.IfMatch = &version
	}
	if off > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", off))
	} else {
		in.ChecksumMode = types.ChecksumModeEnabled
	}
	// Sums are checked by the Stream, which knows the whole object.
	out, err := o.client.GetObject(ctx, in, func(opts *s3.Options) { opts.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired })
	if err != nil {
		return nil, o.explain(ctx, err)
	}
	p := &Part{Body: out.Body, Size: aws.ToInt64(out.ContentLength), Version: aws.ToString(out.ETag)}
	if out.ContentLength == nil {
		p.Size = -1
	}
	if off > 0 {
		at, total, err := contentRange(aws.ToString(out.ContentRange))
		if err != nil || at != off {
			_ = out.Body.Close()
			return nil, &Error{URL: o.Where(), Reason: "the server answers with another range than it was asked for"}
		}
		p.Size = total
		return p, nil
	}
	p.Sums = s3Sums(out)
	return p, nil
}

// s3Sums are the checksums of an object. Those of an object that was uploaded in parts are of the parts. An entity tag is the
// MD5 of what is not encrypted with a key of its own.
func s3Sums(out *s3.GetObjectOutput) []Sum {
	var sums []Sum
	if out.ChecksumType != types.ChecksumTypeComposite {
		for _, c := range []struct {
			name  string
			value *string
			hash  func() hash.Hash
		}{
			{"SHA-256", out.ChecksumSHA256, sha256.New},
			{"SHA-1", out.ChecksumSHA1, sha1.New},
			{"CRC-64/NVME", out.ChecksumCRC64NVME, func() hash.Hash { return crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5)) }},
			{"CRC-32C", out.ChecksumCRC32C, func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }},
			{"CRC-32", out.ChecksumCRC32, func() hash.Hash { return crc32.NewIEEE() }},
		} {
			if want, err := base64.StdEncoding.DecodeString(aws.ToString(c.value)); err == nil && len(want) > 0 && len(sums) == 0 {
				sums = append(sums, Sum{Name: c.name, Hash: c.hash(), Want: want})
			}
		}
	}
	plain := out.ServerSideEncryption == "" || out.ServerSideEncryption == types.ServerSideEncryptionAes256
	if want, err := hex.DecodeString(strings.Trim(aws.ToString(out.ETag), `"`)); err == nil && len(want) == md5.Size && plain && out.SSECustomerAlgorithm == nil {
		sums = append(sums, Sum{Name: "MD5", Hash: md5.New(), Want: want}) //nolint:gosec // as above
	}
	return sums
}

// explain says what the store said, without what the request held: Amazon repeats the session token where a signature does not match.
func (o *s3Object) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &Error{URL: o.Where(), Err: err, Temporary: temporary(err), Reason: escape(last(err).Error())}
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.HTTPStatusCode() != 0 {
		e.Status, e.Reason = answer.HTTPStatusCode(), ""
		e.Temporary = isPassing(e.Status)
		e.Refused = e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	}
	var api smithy.APIError
	if errors.As(err, &api) && e.Status != 0 {
		e.Reason = escape(api.ErrorCode())
		if api.ErrorCode() != "SignatureDoesNotMatch" && api.ErrorMessage() != "" {
			e.Reason += ": " + escape(api.ErrorMessage())
		}
		switch api.ErrorCode() {
		case "PreconditionFailed":
			return changed(o.Where())
		case "SlowDown", "ThrottlingException", "RequestTimeout", "InternalError":
			e.Temporary = true
		case "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed":
			e.Refused = true
		}
	}
	if e.Refused && o.nobody {
		e.Reason += "; no credential was given: AWS_ACCESS_KEY_ID, a profile, a web identity and a role of the container or the machine were looked for"
	}
	return e
}

// last is the innermost cause that says what happened, without all that was being done.
func last(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil || errors.Is(ErrForbidden, inner) {
			return err
		}
		err = inner
	}
}
