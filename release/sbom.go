// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// sbom is the part of an SPDX 2.3 document that is used here.
type sbom struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creationInfo   `json:"creationInfo"`
	Packages          []spdxPackage  `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	SPDXID           string        `json:"SPDXID"`
	Name             string        `json:"name"`
	VersionInfo      string        `json:"versionInfo,omitempty"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm     string `json:"algorithm"`
	ChecksumValue string `json:"checksumValue"`
}

type externalRef struct {
	ReferenceCategory string `json:"referenceCategory"`
	ReferenceType     string `json:"referenceType"`
	ReferenceLocator  string `json:"referenceLocator"`
}

type relationship struct {
	SPDXElementID      string `json:"spdxElementId"`
	RelationshipType   string `json:"relationshipType"`
	RelatedSPDXElement string `json:"relatedSpdxElement"`
}

// newSBOM lists the modules that are linked into a binary, as the binary itself says, and some packages of Debian. The same binary gives the
// same document.
func newSBOM(name, version string, created time.Time, binary string, debian []deb) (*sbom, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	doc := &sbom{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: name,
		DocumentNamespace: "https://github.com/kaniko-go/kaniko-go/spdx/" + name + "-" + digest,
		CreationInfo:      creationInfo{created.Format(time.RFC3339), []string{"Tool: kaniko-go-release"}},
	}
	main := newPackage("SPDXRef-kaniko-go", "github.com/kaniko-go/kaniko-go", version, "pkg:golang/github.com/kaniko-go/kaniko-go@"+version)
	main.LicenseConcluded, main.LicenseDeclared = "Apache-2.0", "Apache-2.0"
	main.Checksums = []checksum{{"SHA256", digest}}
	doc.Packages = append(doc.Packages, main)
	doc.relate("SPDXRef-DOCUMENT", "DESCRIBES", main.SPDXID)
	doc.contain(main.SPDXID, newPackage("SPDXRef-go", "stdlib", info.GoVersion, "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go")))
	for i, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		p := newPackage(fmt.Sprintf("SPDXRef-module-%d", i+1), m.Path, m.Version, "pkg:golang/"+m.Path+"@"+m.Version)
		p.DownloadLocation = "https://proxy.golang.org/" + m.Path + "/@v/" + m.Version + ".zip"
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(raw) == sha256.Size {
			p.ExternalRefs = append(p.ExternalRefs, externalRef{"OTHER", "go-module-h1", m.Sum})
		}
		doc.contain(main.SPDXID, p)
	}
	for _, d := range debian {
		doc.contain(main.SPDXID, newPackage("SPDXRef-debian-"+d.Package, d.Package, d.Version, "pkg:deb/debian/"+d.Package+"@"+d.Version+"?arch="+d.Architecture))
	}
	return doc, nil
}

// newPackage says nothing of licences where nobody has looked: THIRD_PARTY_NOTICES has the texts.
func newPackage(id, name, version, purl string) spdxPackage {
	const unknown = "NOASSERTION"
	return spdxPackage{
		SPDXID: id, Name: name, VersionInfo: version, DownloadLocation: unknown, LicenseConcluded: unknown, LicenseDeclared: unknown, CopyrightText: unknown,
		ExternalRefs: []externalRef{{"PACKAGE-MANAGER", "purl", purl}},
	}
}

func (s *sbom) contain(in string, p spdxPackage) {
	s.Packages = append(s.Packages, p)
	s.relate(in, "CONTAINS", p.SPDXID)
}

func (s *sbom) relate(from, kind, to string) {
	s.Relationships = append(s.Relationships, relationship{from, kind, to})
}

func (s *sbom) write(file string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
