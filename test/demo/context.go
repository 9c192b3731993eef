package main

import (
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// clientContext is the file that `causeway up` leaves for its clients.
type clientContext struct {
	Server string `json:"server"`
	CACert string `json:"cacert"`
	Cert   string `json:"cert"`
	Key    string `json:"key"`
}

func readContext(state string) (clientContext, error) {
	var c clientContext
	b, err := os.ReadFile(filepath.Join(state, "client.yaml"))
	if err != nil {
		return c, err
	}
	return c, yaml.Unmarshal(b, &c)
}
