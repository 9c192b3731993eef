package resolve

type memo struct{}
