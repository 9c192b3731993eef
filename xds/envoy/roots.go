package envoy

import "os"

// systemRoots are where distributions keep the certificate authorities that the
// system trusts.
var systemRoots = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Alpine, Gentoo
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7 and later
	"/etc/ssl/cert.pem",
}

// SystemRoots is the file with the certificate authorities that this machine trusts, for
// BackendTLSPolicies with wellKnownCACertificates: System; "" if there is none.
func SystemRoots() string { return firstFile(systemRoots) }

// firstFile is the first of the names that is a file with something in it, or "".
func firstFile(names []string) string {
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			return name
		}
	}
	return ""
}
