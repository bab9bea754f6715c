// SPDX-License-Identifier: Apache-2.0

package node

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// nodeName is the name of the only node.
const nodeName = "node"

// authority signs the certificates of one cluster.
type authority struct {
	certificate *x509.Certificate
	key         *rsa.PrivateKey
	serial      int64
}

// writePKI makes ca.pem, NAME.pem and NAME.key for the API server, the administrator and the node, and the key of service account tokens. The
// administrator's are also those of the controllers, and what the API server is known by at the kubelet.
func (n *Node) writePKI() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	a := authority{key: key, certificate: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}, serial: 1}
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if err := writePEM(n.path("ca.pem"), "CERTIFICATE", der); err != nil {
		return err
	}
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.ParseIP(Address), net.ParseIP("10.99.2.1"), net.IPv4(127, 0, 0, 1)},
	}
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for name, template := range map[string]*x509.Certificate{
		"apiserver": server,
		"admin":     {Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, ExtKeyUsage: client},
		"node":      {Subject: pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}}, ExtKeyUsage: client},
	} {
		if err := a.issue(template, n.path(name)); err != nil {
			return fmt.Errorf("certificate %s: %w", name, err)
		}
	}
	tokens, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&tokens.PublicKey)
	if err != nil {
		return err
	}
	if err := writePEM(n.path("tokens.pub"), "PUBLIC KEY", public); err != nil {
		return err
	}
	return writePEM(n.path("tokens.key"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(tokens))
}

// issue writes file.pem and file.key.
func (a *authority) issue(template *x509.Certificate, file string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	template.NotBefore, template.NotAfter = a.certificate.NotBefore, a.certificate.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	if err := writePEM(file+".pem", "CERTIFICATE", der); err != nil {
		return err
	}
	return writePEM(file+".key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
