// SPDX-License-Identifier: Apache-2.0

package fetch

import "testing"

// TestAzureSignature puts a signature beside what says which version of the blob is meant.
func TestAzureSignature(t *testing.T) {
	const blob = "https://acc.blob.core.windows.net/c/b"
	for _, tt := range []struct{ url, sas, want string }{
		{blob, "?sv=1&sig=x", blob + "?sv=1&sig=x"},
		{blob + "?versionid=2024", "sv=1&sig=x", blob + "?versionid=2024&sv=1&sig=x"},
		{blob + "?sv=2&sig=y", "sv=1&sig=x", blob + "?sv=2&sig=y"},
	} {
		o, err := AzureObject(tt.url, AzureOptions{SAS: tt.sas}, Network{})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		if got := o.(*azureObject).client.URL(); got != tt.want {
			t.Errorf("%s with %s is %s", tt.url, tt.sas, got)
		}
	}
}
