// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"

	"github.com/johannesboyne/gofakes3"
)

// putS3 stores an object.
func putS3(backend gofakes3.Backend, name string, data []byte) error {
	_, err := backend.PutObject("bucket", name, map[string]string{}, bytes.NewReader(data), int64(len(data)), nil)
	return err
}
