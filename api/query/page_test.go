package query

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

// Rows that exist all the while are listed exactly once and in order, whatever
// the page sizes, and whatever comes and goes between the pages.
func TestPaginate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-c]{1,3}`)
		stable := rapid.SliceOfDistinct(name, rapid.ID).Draw(t, "stable")
		var got []string
		page := &causewayv1.Page{}
		for {
			page.PageSize = int32(rapid.IntRange(1, 4).Draw(t, "size"))
			var list []row[*causewayv1.Problem]
			for _, n := range slices.Concat(stable, rapid.SliceOfDistinct(name, rapid.ID).Draw(t, "passing")) {
				if !slices.ContainsFunc(list, func(r row[*causewayv1.Problem]) bool { return r.key == n }) {
					list = append(list, row[*causewayv1.Problem]{n, func() *causewayv1.Problem { return &causewayv1.Problem{Where: n} }})
				}
			}
			rows, next, err := paginate(page, 7, sorted(list))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				got = append(got, r.GetWhere())
			}
			if next == "" {
				break
			}
			page.PageToken = next
		}
		if !slices.IsSortedFunc(got, func(a, b string) int { return cmp.Compare(a, b) }) {
			t.Fatalf("not in order: %v", got)
		}
		for _, s := range stable {
			n := 0
			for _, g := range got {
				if g == s {
					n++
				}
			}
			if n != 1 {
				t.Fatalf("%q is listed %d times in %v", s, n, got)
			}
		}
	})
}

// A page ends where it becomes too large for a client, too.
func TestPageBytes(t *testing.T) {
	t.Parallel()
	var list []row[*causewayv1.Problem]
	for i := range 100 {
		list = append(list, row[*causewayv1.Problem]{fmt.Sprintf("%03d", i), func() *causewayv1.Problem {
			return &causewayv1.Problem{Message: string(make([]byte, 100<<10))}
		}})
	}
	rows, next, err := paginate(&causewayv1.Page{PageSize: 100}, 7, sorted(list))
	if err != nil || next == "" || len(rows) == 0 || len(rows) > 25 {
		t.Errorf("%d rows of 100 KiB in a page, next %q, %v; want some 20", len(rows), next, err)
	}
}
