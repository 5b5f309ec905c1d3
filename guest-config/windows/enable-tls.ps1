<#
.SYNOPSIS
Make the Docker engine of this machine listen on a TCP port too, for clients with a certificate of the pool's CA.

.DESCRIPTION
Copies ca.pem, server-cert.pem and server-key.pem to C:\ProgramData\docker\xscontainer-tls, readable only by
administrators and the system. Adds the keys for TLS to daemon.json, restarts the service and opens the port in the
firewall. The engine stays reachable through its named pipe. Run the script again to replace the certificates by newer
ones. If the engine does not start, all files are restored. If daemon.json has a port or TLS keys from elsewhere, the
script changes nothing. -Remove removes only what this script has added.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File D:\enable-tls.ps1

.EXAMPLE
powershell -ExecutionPolicy Bypass -File D:\enable-tls.ps1 -Remove
#>
#Requires -Version 5.1
#Requires -RunAsAdministrator
[CmdletBinding()]
param(
    # The port to listen on.
    [ValidateRange(1, 65535)] [int] $Port = 2376,
    # The address to listen on. The default is all IPv4 addresses; '[::]' is all of IPv4 and IPv6.
    [string] $Address = '0.0.0.0',
    # The directory with the certificates.
    [string] $Source = $PSScriptRoot,
    # The name of the engine's service.
    [string] $Service = 'docker',
    # Undo it: remove the certificates and the TCP port.
    [switch] $Remove
)

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$Data = Join-Path $env:ProgramData 'docker'
$ConfigFile = Join-Path (Join-Path $Data 'config') 'daemon.json'
$RuleName = 'xscontainer-docker-tls'
$Directory = Join-Path $Data 'xscontainer-tls'
$Names = 'ca.pem', 'server-cert.pem', 'server-key.pem'
# The entry that this script added to "hosts". If it exists, the TLS keys that point here are from this script, too.
$Record = Join-Path $Directory 'host.txt'
$TlsKeys = @{
    tlsverify = $true
    tlscacert = (Join-Path $Directory 'ca.pem')
    tlscert   = (Join-Path $Directory 'server-cert.pem')
    tlskey    = (Join-Path $Directory 'server-key.pem')
}

function Read-Config {
    if (-not (Test-Path -LiteralPath $ConfigFile)) { return New-Object psobject }
    $text = [IO.File]::ReadAllText($ConfigFile)
    if ($text.Trim() -eq '') { return New-Object psobject }
    return ConvertFrom-Json -InputObject $text
}

function Write-Config([psobject] $Config) {
    $text = ConvertTo-Json -InputObject $Config -Depth 32
    [IO.Directory]::CreateDirectory((Split-Path $ConfigFile)) | Out-Null
    # Not Set-Content: it would write a byte order mark, which dockerd refuses.
    [IO.File]::WriteAllText($ConfigFile, $text, (New-Object Text.UTF8Encoding $false))
}

function Set-Key([psobject] $Config, [string] $Key, $Value) {
    Add-Member -InputObject $Config -MemberType NoteProperty -Name $Key -Value $Value -Force
}

function Remove-Key([psobject] $Config, [string] $Key) {
    if ($Config.PSObject.Properties[$Key]) { $Config.PSObject.Properties.Remove($Key) }
}

function Protect-Directory([string] $Path) {
    # By identifier: group names depend on the language. S-1-5-18 is the system, S-1-5-32-544 the administrators.
    $acl = New-Object Security.AccessControl.DirectorySecurity
    $acl.SetAccessRuleProtection($true, $false)
    foreach ($sid in 'S-1-5-18', 'S-1-5-32-544') {
        $who = New-Object Security.Principal.SecurityIdentifier $sid
        $acl.AddAccessRule((New-Object Security.AccessControl.FileSystemAccessRule(
            $who, 'FullControl', 'ContainerInherit, ObjectInherit', 'None', 'Allow')))
    }
    Set-Acl -LiteralPath $Path -AclObject $acl
}

function Restart-Engine {
    Restart-Service -Name $Service -Force
    (Get-Service -Name $Service).WaitForStatus('Running', [TimeSpan]::FromSeconds(60))
}

if (-not (Get-Service -Name $Service -ErrorAction SilentlyContinue)) {
    throw "There is no service with the name '$Service'. Give its name with -Service."
}
$config = Read-Config
$ours = if (Test-Path -LiteralPath $Record) { [IO.File]::ReadAllText($Record).Trim() } else { '' }
$hosts = @()
if ($config.PSObject.Properties['hosts']) { $hosts = @($config.hosts) }

# Ports and keys from elsewhere are left alone: all ports but ours, and all keys with other values than ours.
$foreign = @($hosts | Where-Object { $_ -notlike 'npipe:*' -and $_ -ne $ours })
foreach ($key in @('tls') + @($TlsKeys.Keys)) {
    $found = $config.PSObject.Properties[$key]
    if ($found -and -not ($ours -and $TlsKeys.ContainsKey($key) -and $found.Value -eq $TlsKeys[$key])) { $foreign += $key }
}

if ($Remove) {
    if (-not $ours) { throw 'This script has not set up anything on this machine.' }
} else {
    foreach ($name in $Names) {
        if (-not (Test-Path -LiteralPath (Join-Path $Source $name))) { throw "The file $name is missing in $Source." }
    }
    if ($foreign.Count -gt 0) {
        throw ("$ConfigFile has ports or TLS keys from elsewhere: $($foreign -join ', '). Remove them there and run this " +
            'script again, or configure the engine by hand with the certificates of this CD.')
    }
    # dockerd refuses an option that is both on its command line and in daemon.json.
    $command = (Get-ItemProperty "HKLM:\SYSTEM\CurrentControlSet\Services\$Service").ImagePath
    if ($command -match '\s(-H|--host|--tls)') {
        throw "The service '$Service' is registered with options for hosts or TLS: $command. Register it without these options first."
    }
}

$files = @($ConfigFile, $Record) + @($Names | ForEach-Object { Join-Path $Directory $_ })
$before = @{}
foreach ($path in $files) {
    if (Test-Path -LiteralPath $path) { $before[$path] = [IO.File]::ReadAllBytes($path) }
}

try {
    $hosts = @($hosts | Where-Object { $_ -ne $ours })
    if ($Remove) {
        foreach ($key in $TlsKeys.Keys) {
            if ($foreign -notcontains $key) { Remove-Key $config $key }
        }
        # The pipe alone is the default of the engine.
        if (($hosts -join ' ') -in '', 'npipe://') { Remove-Key $config 'hosts' } else { Set-Key $config 'hosts' $hosts }
        Remove-Item -LiteralPath $Record
    } else {
        [IO.Directory]::CreateDirectory($Directory) | Out-Null
        # Before files are written into it.
        Protect-Directory $Directory
        foreach ($name in $Names) {
            # Not Copy-Item: it copies the read-only attribute of the CD, and the file could not be replaced later.
            [IO.File]::WriteAllBytes((Join-Path $Directory $name), [IO.File]::ReadAllBytes((Join-Path $Source $name)))
        }
        if ($hosts.Count -eq 0) { $hosts = @('npipe://') }
        $added = "tcp://${Address}:$Port"
        Set-Key $config 'hosts' @($hosts + $added)
        foreach ($key in $TlsKeys.Keys) { Set-Key $config $key $TlsKeys[$key] }
        [IO.File]::WriteAllText($Record, $added)
    }
    Write-Config $config
    Restart-Engine
} catch {
    $why = $_
    foreach ($path in $files) {
        if ($before.ContainsKey($path)) {
            [IO.File]::WriteAllBytes($path, $before[$path])
        } else {
            Remove-Item -LiteralPath $path -ErrorAction SilentlyContinue
        }
    }
    try { Restart-Engine } catch { Write-Warning "The engine does not start with the restored files either: $_" }
    throw "The engine does not start with TLS, so all files were restored. The event log says why. $why"
}

Get-NetFirewallRule -Name $RuleName -ErrorAction SilentlyContinue | Remove-NetFirewallRule
if ($Remove) {
    foreach ($name in $Names) {
        Remove-Item -LiteralPath (Join-Path $Directory $name) -ErrorAction SilentlyContinue
    }
    Write-Output 'The engine now listens on its named pipe only.'
} else {
    New-NetFirewallRule -Name $RuleName -DisplayName 'Docker over TLS (xscontainer)' -Direction Inbound -Protocol TCP `
        -LocalPort $Port -Action Allow | Out-Null
    Write-Output "The engine now listens on port $Port, for clients with a certificate of the pool's CA."
}
