module edged-client

go 1.18

require github.com/vmihailenco/msgpack/v5 v5.3.5
