package up

import (
	"fmt"
	"os"
	"strings"

	"github.com/causeway-mesh/causeway/cluster"
)

// clusterFolders lists the clusters in DIR: its folders, hidden ones left out.
func clusterFolders(dir string) ([]cluster.ID, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder of clusters: %w", err)
	}
	var out []cluster.ID
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		id := cluster.ID(e.Name())
		if err := id.Validate(); err != nil {
			return nil, fmt.Errorf("folder %s: %w; rename the folder", e.Name(), err)
		}
		out = append(out, id)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no folder: make one for each cluster, with its manifests inside", dir)
	}
	return out, nil
}
